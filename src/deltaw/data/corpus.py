"""A data set as token ids in files that are mapped into memory: made once, then found again by its content."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deltaw.data.encode import Encoder
from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Columns, Reader, Source
from deltaw.errors import UserError

FORMAT = 2  # of the files, and of what the encoder makes of a record
TOKENS, SPANS, ABOUT = "tokens.bin", "spans.bin", "about.json"
CHUNK = 1024  # rows that are tokenised together, on all cores


class Corpus:
    """Examples in a folder that `tokenised` wrote, read one by one from wherever they lie.

    `tokens.bin` holds all ids one after another (int32; as −1 − id a token of a prompt that has type 1, and one of a
    completion that is not learnt), `spans.bin` three numbers an example (int64): where its prompt ends, where its
    completion ends, and how many of its tokens are learnt.

    Attributes:
        fingerprint: SHA-256 over the data set's content, whatever the tokenizer.
        shortened: how many examples lost tokens.
        dropped: how many records had nothing to learn, or lost it.
        vocabulary: how many values a token of a completion can have: of the tokenizer without what was added to it,
            or the classes.
        labels: names of the classes in the order of their numbers; none but for a classification.
        joined: whether prompt and completion are one sequence, of at most `max_length` tokens.
        max_length: tokens.
    """

    def __init__(self, folder: Path):
        about = json.loads((folder / ABOUT).read_text())
        self.fingerprint: str = about["fingerprint"]
        self.shortened: int = about["shortened"]
        self.dropped: int = about["dropped"]
        self.vocabulary: int = about["vocabulary"]
        self.labels: list[str] = about["labels"]
        self.joined: bool = about["task"] == "causal"
        self.max_length: int = about["max_length"]
        self._tokens = np.memmap(folder / TOKENS, np.int32, "r")
        self._spans = np.memmap(folder / SPANS, np.int64, "r").reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Example:
        start = int(self._spans[index - 1, 1]) if index else 0
        middle, end, _ = self._spans[index].tolist()
        completion = self._tokens[middle:end].tolist()
        return Example(
            self._tokens[start:middle].tolist(),
            [token if token >= 0 else -1 - token for token in completion],
            [token if token >= 0 else IGNORED for token in completion],
        )

    def lengths(self, chosen: NDArray[np.int64]) -> NDArray[np.int32]:
        """Tokens of prompt, of completion, and of those the learnt, of each of the chosen examples: (chosen, 3)."""
        ends = self._spans[:, 1]
        starts = np.where(chosen > 0, ends[chosen - 1], 0)
        middles, chosen_ends, learnt = self._spans[chosen].T
        return np.stack([middles - starts, chosen_ends - middles, learnt], 1).astype(np.int32)


def cache_folder(given: str | None) -> Path:
    """Where tokenised data sets are kept: as given, or `$DELTAW_CACHE`, or `~/.cache/deltaw`."""
    return Path(given or os.environ.get("DELTAW_CACHE") or "~/.cache/deltaw").expanduser()


def tokenised(source: Source, columns: Columns, encoder: Encoder, cache: Path) -> Corpus:
    """The corpus of a data set, from the cache where it is there, else made and put there.

    The name in the cache is made of the content of the data and of all that its tokens depend on. One process makes
    it, and those that ask meanwhile wait; it is there whole or not at all.

    Args:
        source: the data set.
        columns: names of the fields that are read.
        encoder: makes examples of its records.
        cache: a folder, which need not exist.

    Raises:
        UserError: a row that is not as it should be, nothing left to learn, or a cache that cannot be written.
    """
    place, fields = source.head()
    reader = Reader(columns, encoder.task, fields, place)
    content = source.fingerprint(reader.names())
    parts = [FORMAT, content, reader.kind.__name__, repr(columns), encoder.settings()]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = cache / key
    if not _whole(folder):
        try:
            with _alone(cache / f".{key}.lock"):
                if not _whole(folder):
                    _make(folder, source, reader, encoder, content)
        except OSError as error:
            raise UserError(f"data.cache={cache} cannot be written ({error.strerror}): give another") from error
    return Corpus(folder)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _whole(folder: Path) -> bool:
    """Whether the corpus is there and none of its files was cut short since."""
    try:
        sizes: dict[str, int] = json.loads((folder / ABOUT).read_text())["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _make(folder: Path, source: Source, reader: Reader, encoder: Encoder, content: str) -> None:
    new = folder.with_name(f".{folder.name}.new")
    for left in (new, folder):  # of a process that was killed, or damaged
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir()
    try:
        counts = _write(new, source, reader, encoder)
        about = {
            "fingerprint": content,
            "task": encoder.task,
            "max_length": encoder.max_length,
            **counts,
            "labels": encoder.labels(),
            "vocabulary": len(encoder.labels()) or encoder.tokenizer.vocab_size,
            "bytes": {name: (new / name).stat().st_size for name in (TOKENS, SPANS)},
        }
        (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write(folder: Path, source: Source, reader: Reader, encoder: Encoder) -> dict[str, int]:
    rows = source.rows(reader.names())
    count = shortened = dropped = end = 0
    bar = tqdm(desc="tokenising", unit=" examples", delay=2, leave=False)
    with (folder / TOKENS).open("wb") as tokens, (folder / SPANS).open("wb") as spans, bar:
        while chunk := list(islice(rows, CHUNK)):
            records = [reader(place, row) for place, row in chunk]
            encoded = encoder([place for place, _ in chunk], records)
            kept = [one.example for one in encoded if one.example]
            ids = np.array([token for example in kept for token in _flat(example)], np.int32)
            lengths = np.array([_lengths(example) for example in kept], np.int64).reshape(-1, 3)
            ends = lengths[:, :2].cumsum().reshape(-1, 2) + end
            end += len(ids)
            ids.tofile(tokens)
            np.column_stack([ends, lengths[:, 2]]).tofile(spans)
            count, dropped = count + len(kept), dropped + len(encoded) - len(kept)
            shortened += sum(one.shortened for one in encoded)
            bar.update(len(chunk))
    if not count:
        raise UserError(f"all {dropped} examples have an empty completion, or lose it: nothing is left to learn")
    if encoder.labels():
        _renumber(folder, encoder.numbers())
    return {"shortened": shortened, "dropped": dropped}


def _flat(example: Example) -> list[int]:
    if example.labels == example.completion:
        return example.prompt + example.completion
    both = zip(example.completion, example.labels, strict=True)
    return example.prompt + [-1 - token if label == IGNORED else token for token, label in both]


def _lengths(example: Example) -> tuple[int, int, int]:
    ignored = 0 if example.labels == example.completion else example.labels.count(IGNORED)
    return len(example.prompt), len(example.completion), len(example.completion) - ignored


def _renumber(folder: Path, numbers: list[int]) -> None:
    """Give classes their final numbers: names are sorted when all have been seen."""
    if numbers == list(range(len(numbers))):
        return
    tokens = np.memmap(folder / TOKENS, np.int32, "r+")
    ends = np.memmap(folder / SPANS, np.int64, "r").reshape(-1, 3)[:, 1] - 1
    tokens[ends] = np.array(numbers, np.int32)[tokens[ends]]
    tokens.flush()
