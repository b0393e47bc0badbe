"""How examples are kept: made once, in files that hold what they say."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaw.data.corpus import cache_folder, cached_corpus
from deltaw.data.data_set import DataSet
from deltaw.data.encode import Encoder, encoder_for
from deltaw.data.example import IGNORED, Example
from deltaw.data.reader import Columns
from deltaw.errors import UserError
from tests.support.texts import WORDS, Rows, corpus, tokenizer


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40), st.integers(2, 30))
def test_lengths_equal_those_of_the_examples_and_none_is_too_long(
    sizes: list[tuple[int, int]], max_length: int
) -> None:
    rows = [{"prompt": " ".join(WORDS[:p]), "completion": " ".join(WORDS[:c])} for p, c in [*sizes, (1, 1)]]
    made = corpus(rows, max_length=max_length)
    chosen = np.arange(len(made))[::-1]
    found = [made[n] for n in chosen.tolist()]
    true = [(len(one.prompt), len(one.completion), sum(label != IGNORED for label in one.labels)) for one in found]
    assert made.lengths(chosen).tolist() == [list(lengths) for lengths in true]
    assert all(p >= 1 and c >= 1 and p + c <= max_length for p, c, _ in true)
    assert made.dropped == sum(c == 0 for _, c in sizes)


def data(source: Rows) -> DataSet:
    return DataSet(source, Columns(), "causal")


def encoder(max_length: int = 50, eos: bool = True) -> Encoder:
    return encoder_for("causal", tokenizer(), max_length, None, eos, None)


def test_tokens_are_made_once_for_the_same_content_and_anew_for_any_other(tmp_path: Path) -> None:
    source = Rows([{"prompt": "w1", "completion": "w2"}])
    for _ in range(2):
        cached_corpus(data(source), encoder(), tmp_path)
    assert source.read == 1
    cached_corpus(data(source), encoder(max_length=9), tmp_path)
    cached_corpus(data(source), encoder(eos=False), tmp_path)
    assert source.read == 3
    other = Rows([{"prompt": "w1", "completion": "w3"}])
    assert cached_corpus(data(other), encoder(), tmp_path)[0].completion == [4, 0] and other.read == 1
    made = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(made) == 4 and not any(path.name.startswith(".") for path in made)
    for path in made:
        (path / "tokens.bin").write_bytes(b"1234")  # cut short, as by a full disk
    assert cached_corpus(data(source), encoder(), tmp_path)[0] == Example([2], [3, 0], [3, 0])


def _make(folder: Path, made: "multiprocessing.Queue[list[int]]") -> None:
    source = Rows([{"prompt": "w1", "completion": "w2"}] * 3000)
    made.put([source.read, len(cached_corpus(data(source), encoder(), folder)), source.read])


def test_processes_that_ask_at_once_make_one_corpus(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    made: multiprocessing.Queue[list[int]] = context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path, made)) for _ in range(4)]
    for process in processes:
        process.start()
    results = sorted(made.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    assert results == [[0, 3000, 0]] * 3 + [[0, 3000, 1]]


def test_a_failure_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    good = {"prompt": "w1", "completion": "w2"}
    with pytest.raises(UserError, match=r"row 2500 has no text in field 'completion' but null"):
        cached_corpus(data(Rows([good] * 2500 + [{**good, "completion": None}])), encoder(), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.cache=.*/file cannot be written \(.*\): give another"):
        cached_corpus(data(Rows([good])), encoder(), tmp_path / "file")


def test_the_cache_is_the_given_folder_or_the_environments_or_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAW_CACHE", "/somewhere")
    assert [cache_folder("/else").as_posix(), cache_folder(None).as_posix()] == ["/else", "/somewhere"]
    monkeypatch.delenv("DELTAW_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "deltaw"


def test_the_files_hold_tokens_marks_and_spans(tmp_path: Path) -> None:
    cached_corpus(data(Rows([{"prompt": "w1 w2", "completion": "w3"}] * 2)), encoder(), tmp_path)
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert np.fromfile(folder / "tokens.bin", np.int32).tolist() == [2, 3, 4, 0] * 2
    assert np.fromfile(folder / "spans.bin", np.int64).tolist() == [2, 4, 2, 6, 8, 2]
    assert np.fromfile(folder / "marks.bin", np.uint8).tolist() == [0, 0, 1, 1] * 2
    assert json.loads((folder / "about.json").read_text())["labels"] == []
