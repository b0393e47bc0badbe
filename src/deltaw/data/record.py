"""Records of a data set, told apart by the names of their fields."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, NamedTuple, Protocol, runtime_checkable

from deltaw.errors import UserError

Row = Mapping[str, Any]


@runtime_checkable
class Source(Protocol):
    """A data set: the same rows each time that they are asked for. `fields` are those that are needed of a row."""

    def head(self) -> tuple[str, list[str]]:
        """Where its first row stands, as an error names it, and the fields there."""

    def classes(self, field: str) -> list[str] | None:
        """Names of the classes in a field, in the order of their numbers, where the data set has such a list."""

    def fingerprint(self, fields: list[str]) -> str:
        """SHA-256 over its content."""

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        """Every row as it is read, after where it stands."""


class Pair(NamedTuple):
    """What an arm reads, and what it learns to write after it."""

    prompt: str
    completion: str


class Chat(NamedTuple):
    """Turns as a chat template takes them: of the assistant's an arm learns to write."""

    messages: list[dict[str, Any]]


class Text(NamedTuple):
    """A text of which an arm learns to write all."""

    text: str


class Labelled(NamedTuple):
    """A text, or two that belong together, and its class by number or name."""

    texts: tuple[str, ...]
    label: int | str


Record = Pair | Chat | Text | Labelled

_FIELDS: dict[type[Record], tuple[str, ...]] = {
    Pair: ("prompt", "completion"),
    Chat: ("messages",),
    Text: ("text",),
    Labelled: ("text", "label"),
}
_KINDS: dict[str, tuple[type[Record], ...]] = {
    "causal": (Pair, Chat, Text),
    "seq2seq": (Pair,),
    "classification": (Labelled,),
}


@dataclass(frozen=True)
class Columns:
    """Names of the fields that are read; None is the usual name, which is the attribute's own.

    Instead of a name, all but `messages` and `label` take a template, as "{question} | {table[header]}". `text` may
    be two of either, for a classification of pairs.
    """

    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    text: str | Sequence[str] | None = None
    label: str | None = None

    def of(self, field: str) -> tuple[str, ...]:
        """Names or templates of a field: one, or those of `text`."""
        given = getattr(self, field) or field
        return (given,) if isinstance(given, str) else tuple(given)


class Reader:
    """Makes records of rows. The kind follows from the task, the columns that are set, and the fields of a first row.

    Args:
        columns: names of the fields.
        task: causal, seq2seq or classification.
        fields: that a row has.
        place: where that row stands.

    Raises:
        UserError: `fields` has nothing that the task reads.
    """

    def __init__(self, columns: Columns, task: str, fields: Iterable[str], place: str):
        self.columns, there = columns, sorted(fields)
        kinds = _KINDS[task]
        asked = [kind for kind in kinds if any(getattr(columns, field) for field in _FIELDS[kind])]
        fitting = [kind for kind in asked or kinds if set(self._needed(kind)) <= set(there)]
        if not fitting:
            wanted = " or ".join(" and ".join(map(repr, self._needed(kind))) for kind in asked or kinds)
            settings = sorted({f"data.{field}" for kind in kinds for field in _FIELDS[kind]})
            raise UserError(
                f"{place} has the fields {there}, and task={task} reads {wanted}: "
                f"set {', '.join(settings)} to the names of yours"
            )
        self.kind = fitting[0]

    def names(self) -> list[str]:
        """The fields that are read."""
        return list(self._needed(self.kind))

    def _needed(self, kind: type[Record]) -> dict[str, None]:
        given = [setting for field in _FIELDS[kind] for setting in self.columns.of(field)]
        return dict.fromkeys(name for setting in given for name in _fields_in(setting))

    def __call__(self, place: str, row: Row) -> Record:
        """The record in a row.

        Raises:
            UserError: a field is missing or of another type; the message begins with `place`.
        """
        if self.kind is Chat:
            return Chat(_messages(place, row, *self.columns.of("messages")))
        texts = [_text(place, row, setting) for setting in self.columns.of(_FIELDS[self.kind][0])]
        if self.kind is Pair:
            return Pair(texts[0], _text(place, row, *self.columns.of("completion")))
        if self.kind is Text:
            return Text(texts[0])
        return Labelled(tuple(texts), _label(place, row, *self.columns.of("label")))


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 over texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _fields_in(setting: str) -> list[str]:
    if "{" not in setting:
        return [setting]
    try:
        return [name.split(".")[0].split("[")[0] for _, name, _, _ in Formatter().parse(setting) if name is not None]
    except ValueError as error:
        raise UserError(f"{setting!r} is no template ({error}): write fields as {{name}}") from error


class _Template(Formatter):
    """As `str.format`; a list is written as its items with commas between them."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text: str = super().format_field(", ".join(map(str, value)) if isinstance(value, list) else value, format_spec)
        return text


def _text(place: str, row: Row, setting: str) -> str:
    try:
        value = _Template().vformat(setting, (), row) if "{" in setting else row[setting]
    except (LookupError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{place} has no {setting!r} (it has {sorted(row)})") from error
    if not isinstance(value, str):
        raise UserError(
            f"{place} has no text in field {setting!r} but {_short(value)}: give text, or leave the row out"
        )
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{place} has half a surrogate pair in field {setting!r}, which is no text: mend the row")
    return value


def _messages(place: str, row: Row, name: str) -> list[dict[str, Any]]:
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(turn, dict) and "role" in turn for turn in value):
        raise UserError(
            f"{place} has no messages in field {name!r} but {_short(value)}: "
            'a list of {"role": "user", "content": "…"} and the like is needed'
        )
    return value


def _label(place: str, row: Row, name: str) -> int | str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{place} has no label in field {name!r} but {_short(value)}: give a whole number or a name")
    if isinstance(value, int) and value < 0:
        raise UserError(
            f"{place} has the label {value}, out of the range that begins with 0: "
            "leave the row out if it has no label, or take another split"
        )
    return value


def _short(value: object) -> str:
    told = json.dumps(value, default=str, ensure_ascii=False)
    return told if len(told) <= 60 else f"{told[:57]}…"
