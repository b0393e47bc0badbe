from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest

from deltaw.run import json_files
from deltaw.run.json_files import misfit, parse_json, read_json
from deltaw.run.weights import Weight


class Person(TypedDict):
    name: str
    age: NotRequired[int | None]


PLACE = {"file": "a", "tensor": "b", "rows": [[0, 2]], "transposed": False}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, int),
        (1, float),
        (-3.4e38, float),
        (True, bool),
        ("ΔW", str),
        (None, int | None),
        ([1, 2], list[int]),
        ([1, 2], tuple[int, int]),
        ([], tuple[int, ...]),
        ({"a": [None]}, dict[str, list[str | None]]),
        ({"name": "Ada"}, Person),
        ({"name": "Ada", "age": None, "more": [1]}, Person),
        (PLACE, Weight),
        ({"any": [{}]}, Any),
    ],
)
def test_what_the_type_tells_fits(value: object, kind: Any) -> None:
    assert misfit(value, kind) is None


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ({"r": True}, dict[str, int], "r is True, not a whole number"),
        ({"r": 1.5}, dict[str, int], "r is 1.5, not a whole number"),
        ({"r": 2**63}, dict[str, int], "r is a number of more than 64 bits, not a whole number"),
        ({"r": 10**5000}, dict[str, float], "r is a number of more than 64 bits, not a finite number"),
        ({"r": float("nan")}, dict[str, float], "r is nan, not a finite number"),
        ({"r": 1e39}, dict[str, float], "r is 1e+39, not a finite number"),
        ({"r": "16"}, dict[str, float | None], "r is '16', not a finite number or null"),
        ({"r": "a" * 99}, dict[str, bool], f"r is '{'a' * 40}'…, not true or false"),
        ({"r": "\ud800"}, dict[str, str], r"r is '\ud800', not text"),
        ({"\ud800": 1}, dict[str, int], r"a key of the file is '\ud800', not text"),
        ({"r": {"a": [0, []]}}, dict[str, dict[str, list[int]]], "r.a[1] is a list, not a whole number"),
        ({"p": {"age": 3}}, dict[str, Person], "p lacks name"),
        ({"age": 3}, Person, "the file lacks name"),
        ({"p": [1, 2, 3]}, dict[str, tuple[int, int]], "p is a list, not a list of 2"),
        ([], Person, "it is a list, not an object"),
        (PLACE | {"rows": [[0, "2"]]}, Weight, "rows[0][1] is '2', not a whole number"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(value: object, kind: Any, words: str) -> None:
    assert misfit(value, kind) == words


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_in_the_encodings_that_editors_write(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text('{"ΔW": 1}', encoding=encoding)
    assert read_json(tmp_path / "a.json") == {"ΔW": 1}


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe\xfd", "[" * 2000 + "]" * 2000, '{"a": ' * 100_000, "9" * 5000])
def test_what_is_no_json_or_nested_too_deep_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "LARGEST_FILE", 3)
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.json").write_text("[12]")
    with pytest.raises(ValueError, match="it has 4 bytes"):
        read_json(tmp_path / "a.json")
