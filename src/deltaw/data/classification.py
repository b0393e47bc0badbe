"""Labelled texts to examples of task=classification: the completion is the number of a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from deltaw.data.example import Example
from deltaw.data.record import Labelled
from deltaw.data.tokens import Encoded, empty_text
from deltaw.errors import UserError

MAX_CLASSES = 10_000  # a larger number is no class but something else


class Classes:
    """Numbers the classes of a data set.

    Numbers in the data stay as they are. Names get numbers in sorted order, known when all rows have been read; until
    then they are numbered as they appear.

    Args:
        known: names of the classes by number, if the data set lists them.
    """

    def __init__(self, known: list[str] | None):
        self.known = known
        self._seen: dict[int | str, int] = {}  # label → number so far

    def number(self, place: str, label: int | str) -> int:
        """The number of a label, for now.

        Raises:
            UserError: the label is not in the list, above `MAX_CLASSES`, or a name among numbers.
        """
        if self.known is not None:
            return _number_in(self.known, place, label)
        first = next(iter(self._seen), label)
        if type(label) is not type(first):
            raise UserError(
                f"{place} has the label {label!r}, and labels before it were as {first!r}: "
                "give numbers or names in all rows"
            )
        if isinstance(label, int) and label >= MAX_CLASSES:
            raise UserError(f"{place} has the label {label}, out of the range of classes, 0 to {MAX_CLASSES - 1}")
        number = self._seen.setdefault(label, len(self._seen))
        return label if isinstance(label, int) else number

    def names(self) -> list[str]:
        """Names of all classes so far, in the order of their final numbers."""
        if self.known is not None:
            return self.known
        if self._by_name():
            return sorted(map(str, self._seen))
        return [str(number) for number in range(max(map(int, self._seen), default=-1) + 1)]

    def final_numbers(self) -> list[int]:
        """The final number of each class; the index is the number that `number` gave."""
        names = self.names()
        return [names.index(str(name)) for name in self._seen] if self._by_name() else list(range(len(names)))

    def _by_name(self) -> bool:
        return any(isinstance(label, str) for label in self._seen)


def _number_in(known: list[str], place: str, label: int | str) -> int:
    if label in known:
        return known.index(str(label))
    if isinstance(label, str) or label >= len(known):
        raise UserError(f"{place} has the label {label}, and its data set knows {known} alone")
    return label


class _Read(NamedTuple):
    """The tokens of a text or of two, with their types (empty where the tokenizer gives none)."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True)
class ClassificationEncoder:
    """Makes examples of one text or two, cut to `max_length` as the tokenizer cuts: of two texts the longer.

    Attributes:
        tokenizer: the base's.
        max_length: tokens.
        classes: numbers the labels.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    classes: Classes

    task = "classification"

    def settings(self) -> list[object]:
        """Everything that the examples depend on besides tokenizer and records."""
        return [self.max_length, self.classes.known]

    def __call__(self, places: Sequence[str], records: Sequence[Labelled]) -> list[Encoded]:
        """An example of each record.

        Args:
            places: where each record stands, as an error names it.
            records: all with as many texts.

        Raises:
            UserError: a label is no class, or the tokenizer gives types beside 0 and 1.
        """
        texts = [list(column) for column in zip(*(record.texts for record in records), strict=True)]
        uncut = cut = self._read(texts)
        if max(len(text.ids) for text in uncut) > self.max_length:
            # A limit below the number of added tokens makes some tokenizers cut nothing at all.
            least = self.tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
            cut = self._read(texts, {"truncation": True, "max_length": max(self.max_length, least)})
        return [
            Encoded([self._example(text, self.classes.number(place, record.label))], len(whole.ids) > self.max_length)
            for place, record, text, whole in zip(places, records, cut, uncut, strict=True)
        ]

    def _example(self, text: _Read, number: int) -> Example:
        types = tuple(text.types) if any(text.types) else ()
        return Example(text.ids or empty_text(self.tokenizer), [number], [number], types)

    def _read(self, texts: list[list[str]], limit: dict[str, Any] | None = None) -> list[_Read]:
        """Read one column of texts, or two that belong together."""
        out = self.tokenizer(*texts, return_attention_mask=False, verbose=False, **(limit or {}))
        ids: list[list[int]] = out["input_ids"]
        types: list[list[int]] = out.get("token_type_ids", [[]] * len(ids))
        if odd := set(chain(*types)) - {0, 1}:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} gives tokens the types {sorted(odd)} beside 0 and 1, "
                "which are not kept: leave token_type_ids out of model_input_names in its config to go without"
            )
        return [_Read(*text) for text in zip(ids, types, strict=True)]
