"""The bundled text."""

import warnings

import pytest

from deltaw.data import calls

SOURCE = """
class Store:
    def clear(self):
        self._data.clear()
        self._notify(reset(self), when=[now() for _ in self._data.values()])

    def empty(self):
        return not self._data and self.other is None
"""


def test_a_function_is_completed_by_the_names_it_calls_in_the_order_of_the_text() -> None:
    (pair,) = calls._pairs(SOURCE)
    assert pair.prompt.startswith("def clear(self):\n    self._data.clear()\n")
    assert pair.prompt.endswith("\n\ncalls = (")
    assert pair.completion == "clear, _notify, reset, now, values)"


def test_a_text_other_than_the_documented_one_brings_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "REFERENCE_FINGERPRINT", "another")
    with pytest.warns(UserWarning, match=rf"that of Python {calls.REFERENCE_PYTHON}, on which the documented numbers"):
        pairs = calls.Calls().pairs
    monkeypatch.setattr(calls, "REFERENCE_FINGERPRINT", calls._fingerprint(pairs))
    text = calls.Calls()
    with warnings.catch_warnings(action="error"):
        assert text.pairs == pairs
    assert [row for _, row in text.rows([])] == [pair._asdict() for pair in pairs]
    assert len(pairs) == len(set(pairs)) > 3500
    assert all(name in pair.prompt for pair in pairs for name in pair.completion.removesuffix(")").split(", "))


def test_the_library_is_read_when_a_pair_is_asked_for() -> None:
    text = calls.Calls()
    assert text.head() == ("the bundled text", ["prompt", "completion"])
    assert "pairs" not in vars(text)
