"""Texts and a tokenizer of words, for tests of what becomes of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deltaw.data.batches import Examples
from deltaw.data.corpus import Corpus, cached_corpus
from deltaw.data.data_set import DataSet
from deltaw.data.encode import encoder_for
from deltaw.data.example import Example
from deltaw.data.reader import Columns
from deltaw.data.record import Pair, Row, fingerprint
from deltaw.training.objectives import Causal

WORDS = [f"w{n}" for n in range(40)]


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Word n is token n + 1; token 0 ends a text."""
    vocabulary = {"<end>": 0, **{word: n for n, word in enumerate(WORDS, 1)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, **(special or {"eos_token": "<end>"}))


def framed(pair: str = "w38 $A w39 $B w39") -> PreTrainedTokenizerFast:
    """A tokenizer that adds tokens 39 and 40 around a text, as BERT's does."""
    tokens = tokenizer(eos_token="<end>", cls_token="w38", sep_token="w39")
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="w38 $A w39", pair=pair, special_tokens=[("w38", 39), ("w39", 40)]
    )
    return tokens


def typed(last: int) -> PreTrainedTokenizerFast:
    """The same, with token types: 1 in the second text, and `last` at its end."""
    tokens = framed(f"w38 $A w39 $B:1 w39:{last}")
    tokens.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokens


class Rows:
    """A data set in memory."""

    def __init__(self, rows: Sequence[Row], classes: list[str] | None = None):
        self.content, self.names, self.read = rows, classes, 0

    def head(self) -> tuple[str, list[str]]:
        return "row 0", list(self.content[0])

    def classes(self, field: str) -> list[str] | None:
        return self.names

    def fingerprint(self, fields: list[str]) -> str:
        return fingerprint(map(repr, self.content))

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        self.read += 1
        for n, row in enumerate(self.content):
            yield f"row {n}", row


def corpus(
    rows: Sequence[Row],
    tokens: Any = None,
    task: str = "causal",
    max_length: int = 50,
    max_completion: int | None = None,
    eos: bool = True,
    classes: list[str] | None = None,
    columns: Columns | None = None,
    group: str | None = None,
    validation: Sequence[Row] | None = None,
) -> Corpus:
    """What is made of rows, in a cache that is gone at once: a memory map outlives its file."""
    encoder = encoder_for(task, tokens or tokenizer(), max_length, max_completion, eos, classes)
    held_out = None if validation is None else Rows(validation, classes)
    with TemporaryDirectory() as folder:
        return cached_corpus(
            DataSet(Rows(rows, classes), columns or Columns(), task, group, held_out), encoder, Path(folder)
        )


def all_of(made: Corpus) -> list[Example]:
    return [made[n] for n in range(len(made))]


def examples(pairs: Sequence[Pair], max_length: int = 50, eos: bool = True) -> Examples:
    """All pairs, of words."""
    made = corpus([pair._asdict() for pair in pairs], max_length=max_length, eos=eos)
    return Examples(made, np.arange(len(made)), Causal(0).collate)


def pairs(count: int) -> list[Pair]:
    """Pair n: a prompt of n + 1 words, a completion of the word n."""
    return [Pair(" ".join(WORDS[: n + 1]), WORDS[n]) for n in range(count)]
