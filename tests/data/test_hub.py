"""Data sets of the library `datasets`, from folders made here."""

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from deltaw.data.corpus import Corpus, cached_corpus
from deltaw.data.data_set import DataSet
from deltaw.data.encode import encoder_for
from deltaw.data.example import Example
from deltaw.data.hub import HubDataset
from deltaw.data.reader import Columns
from deltaw.errors import UserError
from deltaw.training.build import corpus_of
from tests.support.texts import all_of, tokenizer
from tests.support.tiny import ROOT, factors, make_base, run

datasets = pytest.importorskip("datasets")

TABLE = {"question": ["w1", "w2"], "answer": ["w3", "w4"], "kind": [1, 0]}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def folder_of(table: Mapping[str, Any], folder: Path, written_as: str) -> str:
    features = datasets.Features(
        question=datasets.Value("string"),
        answer=datasets.Value("string"),
        kind=datasets.ClassLabel(names=["no", "yes"]),
    )
    data = datasets.Dataset.from_dict(dict(table), features=features)
    folder.mkdir()
    if written_as == "parquet":
        data.to_parquet(folder / "train.parquet")
    elif written_as == "dict":
        datasets.DatasetDict(train=data).save_to_disk(folder)
    else:
        data.save_to_disk(folder)
    return str(folder)


def composed(path: Path, cache: Path, *more: str) -> Corpus:
    """The corpus of a config for `path`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["data=hub", f"data.path={path}", f"data.cache={cache}", *more])
    return corpus_of(cfg.data, "causal", tokenizer())


def read(source: HubDataset, columns: Columns, cache: Path, task: str = "causal") -> Corpus:
    data = DataSet(source, columns, task)
    return cached_corpus(data, encoder_for(task, tokenizer(), 50, None, False, data.classes), cache)


@pytest.mark.parametrize("written_as", ["parquet", "disk", "dict"])
def test_a_local_folder_is_read_by_the_names_of_its_columns(tmp_path: Path, written_as: str) -> None:
    source = HubDataset(folder_of(TABLE, tmp_path / "set", written_as), None, "train")
    made = read(source, Columns(prompt="question", completion="answer"), tmp_path / "cache")
    assert [made[0], made[1]] == [Example([2], [4], [4]), Example([3], [5], [5])]
    classified = read(source, Columns(text="question", label="kind"), tmp_path / "cache", "classification")
    assert classified.labels == ["no", "yes"] and [classified[0].labels, classified[1].labels] == [[1], [0]]
    again = HubDataset(folder_of(TABLE, tmp_path / "again", written_as), None, "train")
    assert again.fingerprint(["answer"]) == source.fingerprint(["answer"]) != source.fingerprint(["question"])


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(TABLE, tmp_path / "set", "parquet")
    with pytest.raises(UserError, match=r"has the fields \['answer', 'kind', 'question'\], and task=causal reads"):
        read(HubDataset(folder, None, "train"), Columns(), tmp_path / "cache")
    with pytest.raises(UserError, match=r"split nothing is no data set that could be read \(.*nothing"):
        HubDataset(folder, None, "nothing")
    with pytest.raises(UserError, match=r"/none does not exist: give a file, a folder, or the name of a data set"):
        HubDataset(str(tmp_path / "none"), None, "train")
    with pytest.raises(UserError, match=r"split train\[:0\] is no data set that could be read"):
        HubDataset(folder, None, "train[:0]")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"data=hub needs the library datasets: pip install datasets"):
        HubDataset(folder, None, "train")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_a_file_is_read_whatever_split_is_named(tmp_path: Path, name: str) -> None:
    table = {"prompt": ["w1", "w2"], "completion": ["w3", "w4"]}
    if name.endswith("gz"):
        lines = [json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True)]
        (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    else:
        data = datasets.Dataset.from_dict(table)
        write = {"a.jsonl": data.to_json, "a.csv": data.to_csv, "a.parquet": data.to_parquet}[name]
        write(tmp_path / name)
    made = read(HubDataset(str(tmp_path / name), None, "validation[:1]"), Columns(), tmp_path / "cache")
    assert all_of(made) == [Example([2], [4], [4])]


def test_a_file_and_a_folder_may_be_named_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jsonl").write_text('{"text": "w1"}')
    monkeypatch.chdir(tmp_path / "here")
    for path in ("a.jsonl", "."):
        assert len(read(HubDataset(path, None, "train"), Columns(), tmp_path / "cache")) == 1


def test_another_split_can_be_held_out(tmp_path: Path) -> None:
    parts = {"train": {"text": ["w1", "w2"]}, "test": {"text": ["w3"]}}
    datasets.DatasetDict({name: datasets.Dataset.from_dict(part) for name, part in parts.items()}).save_to_disk(
        tmp_path / "set"
    )

    def made_of(*more: str) -> Corpus:
        return composed(tmp_path / "set", tmp_path, *more)

    made = made_of("data.validation_split=test")
    assert [example.completion[0] for example in all_of(made)] == [2, 3, 4] and made.validation == 1
    (tmp_path / "own.jsonl").write_text('{"text": "w5"}')
    assert all_of(made_of(f"data.validation_path={tmp_path / 'own.jsonl'}"))[2].completion[0] == 6
    with pytest.raises(
        UserError, match=r"split train\[:1\] is a part, and .*, from save_to_disk, is read as a whole: give"
    ):
        made_of("data.split='train[:1]'")
    with pytest.raises(UserError, match=r"data.validation_split=train is learned too, as data.split=train is all of"):
        made_of("data.validation_split=train")


def test_a_part_of_the_data_to_learn_is_no_part_of_the_data_held_out(tmp_path: Path) -> None:
    for name, words in (("own", ["w1", "w2", "w3", "w4"]), ("held", ["w5", "w6"])):
        rows = [json.dumps({"text": word}) for word in words]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("\n".join(rows))
    for end in (".jsonl", ""):
        path, half = tmp_path / f"own{end}", "data.split='train[:50%]'"
        made = composed(path, tmp_path, half, f"data.validation_path={tmp_path / f'held{end}'}")
        assert (len(made), made.validation) == (4, 2)
        made = composed(path, tmp_path, half, "data.validation_split='train[75%:]'")
        assert [example.completion[0] for example in all_of(made)] == [2, 3, 5] and made.validation == 1
        with pytest.raises(
            UserError, match=r"data.validation_split=train\[75%:\] is learned too, .* 'data.split=train\[:90%\]' 'data"
        ):
            composed(path, tmp_path, "data.validation_split='train[75%:]'")
    saved = Path(folder_of(TABLE, tmp_path / "saved", "disk"))
    for path, kind in ((tmp_path / "own.jsonl", "file"), (saved, "table")):
        with pytest.raises(
            UserError, match=rf"split=test, but .* is one {kind} and has no splits: give data.validation_path=FILE"
        ):
            composed(path, tmp_path, "data.validation_split=test")


def test_a_run_trains_on_it(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    table = {"question": ["add", "copy load", "open"] * 4, "answer": ["read", "save", "join"] * 4, "kind": [0] * 12}
    trained = run(
        tmp_path,
        "data=hub",
        f"data.path={folder_of(table, tmp_path / 'set', 'parquet')}",
        "data.prompt='{question} >'",
        "data.completion=answer",
        "data.validation=2",
        "trainer.max_steps=2",
    )
    assert trained.name == "base-set-r2-s0_r6-s0"
    assert factors(trained, "r2-s0", 2)
