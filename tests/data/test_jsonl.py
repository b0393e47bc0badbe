"""Files of JSON lines, good and bad."""

import json
from pathlib import Path

import pytest

from deltaw.data.corpus import cached_corpus
from deltaw.data.encode import encoder_for
from deltaw.data.example import Example
from deltaw.data.jsonl import JsonLines
from deltaw.data.record import Columns
from deltaw.errors import UserError
from tests.support.texts import tokenizer

GOOD = b'{"prompt": "w1", "completion": "w2"}\n'


def read(file: Path, content: bytes, task: str = "causal") -> list[Example]:
    file.write_bytes(content)
    made = cached_corpus(
        JsonLines(str(file)), Columns(), encoder_for(task, tokenizer(), 50, None, True, None), file.parent / "cache"
    )
    return [made[n] for n in range(len(made))]


@pytest.mark.parametrize(
    ("row", "task", "example"),
    [
        ({"prompt": "w1", "completion": "w2"}, "causal", Example([2], [3, 0], [3, 0])),
        ({"prompt": "w1", "completion": "w2", "text": "w3"}, "causal", Example([2], [3, 0], [3, 0])),
        ({"text": "w3"}, "causal", Example([0], [4, 0], [4, 0])),
        ({"prompt": "w1", "completion": "w2"}, "seq2seq", Example([2], [3, 0], [3, 0])),
        ({"text": "w3", "label": 1}, "classification", Example([4], [1], [1])),
        ({"text": "w3", "label": "b", "prompt": "", "completion": ""}, "classification", Example([4], [0], [0])),
    ],
)
def test_fields_and_task_decide_what_a_row_becomes(tmp_path: Path, row: object, task: str, example: Example) -> None:
    assert read(tmp_path / "a.jsonl", json.dumps(row).encode(), task) == [example]


def test_a_line_may_hold_the_line_separators_of_unicode_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('\ufeff{"prompt": "a\u2028b", "completion": "c"}\r\n \n', encoding="utf-8")
    assert list(JsonLines(str(file)).rows([])) == [(f"{file}:1", {"prompt": "a\u2028b", "completion": "c"})]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"bad.jsonl is empty: give a file with one JSON object a line"),
        (b"\n \n", r"bad.jsonl is empty"),
        (
            b'{"question": "w1", "answer": "w2"}',
            r"bad.jsonl:1 has the fields \['answer', 'question'\], and",
        ),
        (b'{"text": "w1", "label": 0}\n{"label": 0}', r"bad.jsonl:2 has no 'text' \(it has \['label'\]\)"),
        (GOOD * 2 + b'{"prompt": "w1", "compl', r"bad.jsonl:3 is not JSON \(.*\): one object a line is needed"),
        (GOOD + b"[1]", r"bad.jsonl:2 is a list and no object"),
        (GOOD + b'{"prompt": "\xff", "completion": ""}', r"bad.jsonl:2 is not UTF-8"),
        (GOOD + b'{"prompt": 7, "completion": ""}', r"bad.jsonl:2 has no text in field 'prompt' but 7"),
        (GOOD + b'{"prompt": "\\ud800", "completion": ""}', r"bad.jsonl:2 has half a surrogate pair in field 'prompt'"),
        (b'{"prompt": "w1", "completion": ""}', r"all 1 examples have an empty completion"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_its_line_and_leaves_nothing(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path / "bad.jsonl", content)
    assert not [path for path in tmp_path.glob("cache/*") if path.is_dir()]


def test_a_broken_line_far_down_is_found_in_the_one_pass(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bad.jsonl:150000 is not JSON"):
        read(tmp_path / "bad.jsonl", b'{"text": "w1"}\n' * 149_999 + b"{broken\n")
    assert not [path for path in tmp_path.glob("cache/*") if path.is_dir()]


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.jsonl could not be read \(No such file or directory\)"):
        JsonLines(str(tmp_path / "none.jsonl"))
