"""`benchmarks/answer.py`: the answer of a run as README quotes it."""

import json
import sys
from pathlib import Path

import answer
import pytest

from deltaw.run.directory import RunDirectory
from tests.support.tiny import run


def test_an_answer_is_what_the_analysis_says(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, out = run(folder, "data.judged=6"), tmp_path / "answer.json"
    monkeypatch.setattr(sys, "argv", ["answer.py", str(trained), "--out", str(out)])
    answer.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["trained_on"]["versions"] == RunDirectory(trained).record.versions
    assert found["advice"]["evidence"]["runs"] == [trained.name]
    sentences = found["advice"]["sentences"]
    assert answer.headline(found) == f"> {sentences[0]}"
    assert answer.in_full(found).splitlines() == ["```", *sentences, "```"]
