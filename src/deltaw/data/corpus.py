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
from deltaw.data.data_set import DataSet, Read
from deltaw.data.encode import Encoder
from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Chat
from deltaw.data.tokens import tokenizer_fingerprint
from deltaw.errors import UserError
from deltaw.run.files import locked, replacing

FORMAT = 5  # of the files, and of the way from records to examples; raise it and every corpus is made anew
TOKENS, MARKS, SPANS, GROUPS, ABOUT = "tokens.bin", "marks.bin", "spans.bin", "groups.bin", "about.json"
FILES = (TOKENS, MARKS, SPANS, GROUPS)
CHUNK = 1024  # rows that are tokenised in one call, on all cores


class Corpus:
    """Examples in a folder that `cached_corpus` made; each is read from the files when it is asked for.

    `tokens.bin` holds the ids of all tokens one after another (int32). `marks.bin` holds a byte for each: of a
    prompt's token its type, of a completion's token whether it is learnt. `spans.bin` holds three numbers for each
    example (int64): where its prompt ends, where its completion ends, and how many of its tokens are learnt.
    `groups.bin` holds the number of each example's group (int64): of the value of `group`, or else of its row.

    Attributes:
        group: data.group.
        groups: of each example.
        validation: number of examples of the user's validation file; they are the last.
        rows: number of records that gave the examples; a chat may give one for each of its turns.
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
        self.group: str | None = about["group"]
        self.validation: int = about["validation"]
        self.rows: int = about["rows"]
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
        self.groups = np.memmap(folder / GROUPS, np.int64, "r")

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

    def tokens_from(self, first: int) -> list[int]:
        """The ids of `first` and above that occur, in ascending order."""
        occurring: list[int] = np.unique(self._tokens[self._tokens >= first]).tolist()
        return occurring

    def longest(self) -> dict[str, int]:
        """Tokens of the longest sequence that a model reads at once, by the setting that bounds it."""
        prompts, completions, _ = self.lengths(np.arange(len(self))).T
        if self.joined:
            return {"data.max_length": int((prompts + completions).max())}
        return {"data.max_length": int(prompts.max()), "data.max_completion": int(completions.max())}


def cache_folder(setting: str | None) -> Path:
    """The folder that keeps tokenised data sets: `setting`, else `$DELTAW_CACHE`, else `~/.cache/deltaw`."""
    return Path(setting or os.environ.get("DELTAW_CACHE") or "~/.cache/deltaw").expanduser()


def cached_corpus(data: DataSet, encoder: Encoder, cache: Path) -> Corpus:
    """The corpus of a data set, read from the cache; the first call makes it and puts it there.

    Its name in the cache is a hash of the data and of everything else that its tokens depend on. One process makes
    it while others that ask for it wait; a failure leaves nothing.

    Args:
        data: the data set.
        encoder: turns records into examples.
        cache: a folder, made if it does not exist.

    Raises:
        UserError: a row cannot be read or encoded, nothing is left to learn, or the cache cannot be written.
    """
    fingerprint = data.fingerprint()
    folder = cache / _key(fingerprint, data, encoder)
    if not _is_complete(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(cache / f".{folder.name}.lock"):
                if not _is_complete(folder):
                    _make(folder, data, encoder, fingerprint)
        except OSError as error:
            raise UserError(f"data.cache={cache} cannot be written ({error.strerror}): give another") from error
    return Corpus(folder)


def _key(fingerprint: str, data: DataSet, encoder: Encoder) -> str:
    read = [FORMAT, fingerprint, *data.settings()]
    parts = [*read, encoder.task, encoder.settings(), tokenizer_fingerprint(encoder.tokenizer)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _is_complete(folder: Path) -> bool:
    """Whether the corpus exists and none of its files was cut short later."""
    try:
        sizes: dict[str, int] = json.loads((folder / ABOUT).read_text())["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _make(folder: Path, data: DataSet, encoder: Encoder, fingerprint: str) -> None:
    with replacing(folder) as new:
        new.mkdir()
        counts = _write(new, data, encoder)
        labels: list[str] = []
        if isinstance(encoder, ClassificationEncoder):
            _renumber(new, encoder.classes.final_numbers())
            labels = encoder.classes.names()
        about = {
            "fingerprint": fingerprint,
            "group": data.group,
            "task": encoder.task,
            "max_length": encoder.max_length,
            **counts,
            "labels": labels,
            "vocabulary": len(labels) or encoder.tokenizer.vocab_size,
            "bytes": {name: (new / name).stat().st_size for name in FILES},
        }
        (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def _write(folder: Path, data: DataSet, encoder: Encoder) -> dict[str, int]:
    """Write the examples of all rows; returns the counts that `Corpus` explains."""
    counts = dict.fromkeys(("rows", "validation", "shortened", "dropped"), 0)
    count = end = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in FILES}
        for rows in _chunks(data):
            records: list[Any] = [row.record for row in rows]
            encoded = encoder([row.place for row in rows], records)
            pairs = list(zip(rows, encoded, strict=True))
            examples = [example for one in encoded for example in one.examples]
            arrays = _arrays(examples, end)
            arrays[GROUPS] = np.array([row.group for row, one in pairs for _ in one.examples], np.int64)
            for name, array in arrays.items():
                array.tofile(files[name])
            end += len(arrays[TOKENS])
            count += len(examples)
            counts["rows"] += sum(bool(one.examples) for one in encoded)
            counts["validation"] += sum(len(one.examples) for row, one in pairs if row.held_out)
            counts["shortened"] += sum(one.shortened for one in encoded)
            counts["dropped"] += sum(not one.examples for one in encoded)
    if count == counts["validation"]:
        reason = _why_none(data, held_out=False)
        raise UserError(f"all {counts['dropped']} examples {reason}: nothing is left to learn")
    if len(data.sources) > 1 and not counts["validation"]:
        reason = _why_none(data, held_out=True)
        raise UserError(f"all examples of data.validation_path {reason}: nothing is held out")
    return counts


def _why_none(data: DataSet, held_out: bool) -> str:
    """Why no record to learn, or none to hold out, gave an example."""
    chats = [read.record for read in data.records() if read.held_out == held_out and isinstance(read.record, Chat)]
    roles = list(dict.fromkeys(turn["role"] for chat in chats for turn in chat.messages))
    if roles and "assistant" not in roles:
        return f"have no turn of the assistant (the roles are {', '.join(roles)})"
    return "have an empty completion, or lose it"


def _chunks(data: DataSet) -> Iterator[list[Read]]:
    """The records of a data set, `CHUNK` at a time."""
    records = data.records()
    with tqdm(desc="tokenising", unit=" examples", delay=2, leave=False, disable=None) as bar:
        while chunk := list(islice(records, CHUNK)):
            yield chunk
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
