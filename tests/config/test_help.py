"""`--help` shows every key with its meaning and default, and leaves Hydra's own out."""

import pytest

from deltaw.config.help import help_asked, help_text
from deltaw.config.keys import keys_of
from deltaw.config.schema import AnalyzeConfig, TrainConfig

GROUPS = ("model", "data", "logger")  # of these the choices are shown, and the keys that a newcomer sets


@pytest.mark.parametrize(("command", "config"), [("train", TrainConfig), ("analyze", AnalyzeConfig)])
def test_every_key_is_shown_and_nothing_of_hydra(command: str, config: type) -> None:
    text = help_text(command, f"usage: deltaw {command}")
    assert text.startswith(f"usage: deltaw {command}")
    for name, _ in keys_of(config):
        if name.partition(".")[0] not in GROUPS:
            assert f"{name.rpartition('.')[2]}:" in text, name
    assert "override hydra" not in text and "output_subdir" not in text


def test_the_choices_of_a_group_are_named_and_those_for_own_data_shown_in_full() -> None:
    text = help_text("train", "usage")
    assert "data= chooses one of: calls, hub, jsonl" in text and "data: # with data=jsonl" in text
    assert "experiment= chooses one of: controls, deep96, e2e" in text


@pytest.mark.parametrize(
    ("words", "asked"), [(["--help"], True), (["-h"], True), (["--hydra-help"], False), ([], False)]
)
def test_hydras_own_help_stays_reachable(words: list[str], asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    assert help_asked() is asked
