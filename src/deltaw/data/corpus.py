"""A data set as token ids in files that are mapped into memory: made once, then found again by its content."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deltaw.data.classification import ClassificationEncoder
from deltaw.data.encode import Encoder
from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Columns, Reader, Source
from deltaw.data.tokens import tokenizer_fingerprint
from deltaw.errors import UserError
from deltaw.run.files import locked, replacing

FORMAT = 3  # of the files, and of the way from records to examples; raise it and every corpus is made anew
TOKENS, MARKS, SPANS, ABOUT = "tokens.bin", "marks.bin", "spans.bin", "about.json"
CHUNK = 1024  # rows that are tokenised in one call, on all cores


class Corpus:
    """Examples in a folder that `cached_corpus` made; each is read from the files when it is asked for.

    `tokens.bin` holds the ids of all tokens one after another (int32). `marks.bin` holds a byte for each: of a
    prompt's token its type, of a completion's token whether it is learnt. `spans.bin` holds three numbers for each
    example (int64): where its prompt ends, where its completion ends, and how many of its tokens are learnt.

    Attributes:
        fingerprint: SHA-256 over the data set's content, whatever the tokenizer.
        shortened: number of examples that lost tokens.
        dropped: number of records that had nothing to learn, or lost it.
        vocabulary: number of values that a completion's token can have: the size of the tokenizer's vocabulary,
            without added tokens, or the number of classes.
        labels: names of the classes in the order of their numbers; empty unless the task is a classification.
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
        self._marks = np.memmap(folder / MARKS, np.uint8, "r")
        self._spans = np.memmap(folder / SPANS, np.int64, "r").reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Example:
        start = int(self._spans[index - 1, 1]) if index else 0
        middle, end, _ = self._spans[index].tolist()
        completion, types = self._tokens[middle:end], self._marks[start:middle]
        return Example(
            self._tokens[start:middle].tolist(),
            completion.tolist(),
            np.where(self._marks[middle:end], completion, IGNORED).tolist(),
            tuple(types.tolist()) if types.any() else (),
        )

    def lengths(self, chosen: NDArray[np.int64]) -> NDArray[np.int32]:
        """Tokens of the prompt, of the completion, and those learnt, for each chosen example: (chosen, 3)."""
        ends = self._spans[:, 1]
        starts = np.where(chosen > 0, ends[chosen - 1], 0)
        middles, chosen_ends, learnt = self._spans[chosen].T
        return np.stack([middles - starts, chosen_ends - middles, learnt], 1).astype(np.int32)


def cache_folder(setting: str | None) -> Path:
    """The folder that keeps tokenised data sets: `setting`, else `$DELTAW_CACHE`, else `~/.cache/deltaw`."""
    return Path(setting or os.environ.get("DELTAW_CACHE") or "~/.cache/deltaw").expanduser()


def cached_corpus(source: Source, columns: Columns, encoder: Encoder, cache: Path) -> Corpus:
    """The corpus of a data set, read from the cache; the first call makes it and puts it there.

    Its name in the cache is a hash of the data and of everything else that its tokens depend on. One process makes
    it while others that ask for it wait; a failure leaves nothing.

    Args:
        source: the data set.
        columns: names of the fields to read.
        encoder: turns records into examples.
        cache: a folder, made if it does not exist.

    Raises:
        UserError: a row cannot be read or encoded, nothing is left to learn, or the cache cannot be written.
    """
    place, fields = source.head()
    reader = Reader(columns, encoder.task, fields, place)
    fingerprint = source.fingerprint(reader.names())
    folder = cache / _key(fingerprint, reader, encoder)
    if not _is_complete(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(cache / f".{folder.name}.lock"):
                if not _is_complete(folder):
                    _make(folder, source, reader, encoder, fingerprint)
        except OSError as error:
            raise UserError(f"data.cache={cache} cannot be written ({error.strerror}): give another") from error
    return Corpus(folder)


def _key(fingerprint: str, reader: Reader, encoder: Encoder) -> str:
    data = [fingerprint, reader.kind.__name__, repr(reader.columns)]
    parts = [FORMAT, *data, encoder.task, encoder.settings(), tokenizer_fingerprint(encoder.tokenizer)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _is_complete(folder: Path) -> bool:
    """Whether the corpus exists and none of its files was cut short later."""
    try:
        sizes: dict[str, int] = json.loads((folder / ABOUT).read_text())["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _make(folder: Path, source: Source, reader: Reader, encoder: Encoder, fingerprint: str) -> None:
    with replacing(folder) as new:
        new.mkdir()
        counts = _write(new, source, reader, encoder)
        labels: list[str] = []
        if isinstance(encoder, ClassificationEncoder):
            _renumber(new, encoder.classes.final_numbers())
            labels = encoder.classes.names()
        about = {
            "fingerprint": fingerprint,
            "task": encoder.task,
            "max_length": encoder.max_length,
            **counts,
            "labels": labels,
            "vocabulary": len(labels) or encoder.tokenizer.vocab_size,
            "bytes": {name: (new / name).stat().st_size for name in (TOKENS, MARKS, SPANS)},
        }
        (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def _write(folder: Path, source: Source, reader: Reader, encoder: Encoder) -> dict[str, int]:
    """Write the examples of all rows; returns the number of shortened examples and of dropped records."""
    count = shortened = dropped = end = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in (TOKENS, MARKS, SPANS)}
        for places, records in _chunks(source, reader):
            encoded = encoder(places, records)
            examples = [one.example for one in encoded if one.example]
            arrays = _arrays(examples, end)
            for name, array in arrays.items():
                array.tofile(files[name])
            end += len(arrays[TOKENS])
            count, dropped = count + len(examples), dropped + len(encoded) - len(examples)
            shortened += sum(one.shortened for one in encoded)
    if not count:
        raise UserError(f"all {dropped} examples have an empty completion, or lose it: nothing is left to learn")
    return {"shortened": shortened, "dropped": dropped}


def _chunks(source: Source, reader: Reader) -> Iterator[tuple[list[str], list[Any]]]:
    """The records of a data set, all of one kind, `CHUNK` at a time, after the places where they stand."""
    rows = source.rows(reader.names())
    with tqdm(desc="tokenising", unit=" examples", delay=2, leave=False, disable=None) as bar:
        while chunk := list(islice(rows, CHUNK)):
            yield [place for place, _ in chunk], [reader(place, row) for place, row in chunk]
            bar.update(len(chunk))


def _arrays(examples: list[Example], start: int) -> dict[str, NDArray[Any]]:
    """What each file holds of some examples, the first of which begins at token `start`."""
    ids = [token for example in examples for token in (*example.prompt, *example.completion)]
    marks = [mark for example in examples for mark in _marks(example)]
    lengths = np.array([(len(one.prompt), len(one.completion)) for one in examples], np.int64).reshape(-1, 2)
    learnt = [len(one.labels) - one.labels.count(IGNORED) for one in examples]
    spans = np.column_stack([start + lengths.cumsum().reshape(-1, 2), np.array(learnt, np.int64)])
    return {TOKENS: np.array(ids, np.int32), MARKS: np.array(marks, np.uint8), SPANS: spans}


def _marks(example: Example) -> list[int]:
    types = example.token_types or [0] * len(example.prompt)
    return [*types, *(label != IGNORED for label in example.labels)]


def _renumber(folder: Path, numbers: list[int]) -> None:
    """Give classes their final numbers: the token of every completion becomes `numbers` at that token."""
    if numbers == list(range(len(numbers))):
        return
    tokens = np.memmap(folder / TOKENS, np.int32, "r+")
    last = np.memmap(folder / SPANS, np.int64, "r").reshape(-1, 3)[:, 1] - 1
    tokens[last] = np.array(numbers, np.int32)[tokens[last]]
    tokens.flush()
