"""Files of JSON lines, good and bad."""

import json
from pathlib import Path

import pytest

from deltaw.data.corpus import cached_corpus
from deltaw.data.data_set import DataSet
from deltaw.data.encode import encoder_for
from deltaw.data.example import Example
from deltaw.data.jsonl import JsonLines
from deltaw.data.reader import Columns
from deltaw.errors import UserError
from tests.support.texts import tokenizer

GOOD = b'{"prompt": "w1", "completion": "w2"}\n'


def read(file: Path, content: bytes, task: str = "causal") -> list[Example]:
    file.write_bytes(content)
    data = DataSet(JsonLines(str(file)), Columns(), task)
    made = cached_corpus(data, encoder_for(task, tokenizer(), 50, None, True, None), file.parent / "cache")
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
        (b'[{"prompt": "w1", "completion": "w2"}, 7]', r"bad.jsonl \[1\] is a int and no object"),
        (b'[{"prompt": "w1"', r"bad.jsonl is not JSON \(.*\): one object a line is needed, or a list of objects"),
        (b"[]", r"bad.jsonl is empty"),
        (b"prompt,completion\nw1,w2\n", r"bad.jsonl:1 is not JSON"),
        (GOOD.decode().encode("utf-16"), r"bad.jsonl is UTF-16: save it as UTF-8"),
        (GOOD.decode().encode("utf-16-be"), r"bad.jsonl is no text in UTF-8: save it as UTF-8"),
        (b"\x1f\x8b\x08", r"bad.jsonl is compressed: unpack it, or give data=hub"),
        (b"PAR1", r"bad.jsonl is a parquet file: give data=hub"),
        (b"PK\x03\x04", r"bad.jsonl is a zip archive or a spreadsheet"),
        (GOOD + b'{"prompt": null, "completion": "w2"}', r"bad.jsonl:2 has no text in field 'prompt' but null: give"),
        (GOOD + b'{"prompt": "\xff", "completion": ""}', r"bad.jsonl:2 is not UTF-8"),
        (
            GOOD + b'{"prompt": 7, "completion": ""}',
            r"bad.jsonl:2 has no text in field 'prompt' but 7: .* the template '\{prompt\}'",
        ),
        (GOOD + b'{"prompt": "\\ud800", "completion": ""}', r"bad.jsonl:2, field 'prompt', has half a surrogate pair"),
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
    with pytest.raises(UserError, match=r"bad.jsonl:20000 is not JSON"):
        read(tmp_path / "bad.jsonl", b'{"text": "w1"}\n' * 19_999 + b"{broken\n")
    assert not [path for path in tmp_path.glob("cache/*") if path.is_dir()]


def test_a_list_of_objects_is_read_like_lines(tmp_path: Path) -> None:
    rows = [{"prompt": "w1", "completion": "w2"}, {"prompt": "w3", "completion": "w4"}]
    lines = read(tmp_path / "lines.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert read(tmp_path / "list.json", b"\xef\xbb\xbf \r\n" + json.dumps(rows, indent=2).encode()) == lines


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder: give a file of JSON lines, or data=hub for a folder of data"):
        JsonLines(str(tmp_path))
    (tmp_path / "a.csv").write_text("prompt,completion")
    with pytest.raises(UserError, match=r"a.csv is a table: give data=hub"):
        JsonLines(str(tmp_path / "a.csv"))
    with pytest.raises(UserError, match=r"none.jsonl could not be read \(No such file or directory\)"):
        JsonLines(str(tmp_path / "none.jsonl"))
