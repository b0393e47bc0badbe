"""Records of a data set: what a row holds, by the task and the names of the row's fields."""

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
    """A data set, which gives the same rows every time. `fields` are the fields of a row that will be read."""

    def head(self) -> tuple[str, list[str]]:
        """The place of the first row, as an error names it, and the row's fields."""

    def classes(self, field: str) -> list[str] | None:
        """Names of the classes in a field by number, or None if the data set has no such list."""

    def fingerprint(self, fields: list[str]) -> str:
        """SHA-256 over the content of the data set."""

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        """Every row, after its place."""


class Pair(NamedTuple):
    """A prompt that an arm reads, and the completion that it learns to write."""

    prompt: str
    completion: str


class Chat(NamedTuple):
    """Turns as a chat template takes them; an arm learns to write the turns of the assistant."""

    messages: list[dict[str, Any]]


class Text(NamedTuple):
    """A text; an arm learns to write all of it."""

    text: str


class Labelled(NamedTuple):
    """A text, or two that belong together, and their class by number or name."""

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
    """Names of the fields to read; None is the usual name, which is the attribute's own.

    All but `messages` and `label` take a template in place of a name, as "{question} | {table[header]}". `text` takes
    two names or templates for a classification of pairs.
    """

    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    text: str | Sequence[str] | None = None
    label: str | None = None

    def names_for(self, field: str) -> tuple[str, ...]:
        """The name or template of a field; `text` may have two."""
        names = getattr(self, field) or field
        return (names,) if isinstance(names, str) else tuple(names)


class Reader:
    """Reads rows as records of one kind, which follows from the task, the columns set, and the fields of the first row.

    Args:
        columns: names of the fields.
        task: causal, seq2seq or classification.
        fields: the fields of the first row.
        place: where that row stands.

    Attributes:
        kind: of the records.

    Raises:
        UserError: `fields` lacks what the task reads.
    """

    def __init__(self, columns: Columns, task: str, fields: Iterable[str], place: str):
        self.columns, present = columns, sorted(fields)
        kinds = _KINDS[task]
        named = [kind for kind in kinds if any(getattr(columns, field) for field in _FIELDS[kind])]
        readable = [kind for kind in named or kinds if set(self._fields_of(kind)) <= set(present)]
        if not readable:
            wanted = " or ".join(" and ".join(map(repr, self._fields_of(kind))) for kind in named or kinds)
            settings = sorted({f"data.{field}" for kind in kinds for field in _FIELDS[kind]})
            raise UserError(
                f"{place} has the fields {present}, and task={task} reads {wanted}: "
                f"set {', '.join(settings)} to the names of yours"
            )
        self.kind = readable[0]

    def names(self) -> list[str]:
        """The fields of a row that are read."""
        return self._fields_of(self.kind)

    def _fields_of(self, kind: type[Record]) -> list[str]:
        names = [name for field in _FIELDS[kind] for name in self.columns.names_for(field)]
        return list(dict.fromkeys(field for name in names for field in _fields_in(name)))

    def __call__(self, place: str, row: Row) -> Record:
        """The record in a row.

        Raises:
            UserError: a field is missing or has a wrong type; the message begins with `place`.
        """
        if self.kind is Chat:
            return Chat(_messages(place, row, *self.columns.names_for("messages")))
        texts = [_text(place, row, name) for name in self.columns.names_for(_FIELDS[self.kind][0])]
        if self.kind is Pair:
            return Pair(texts[0], _text(place, row, *self.columns.names_for("completion")))
        if self.kind is Text:
            return Text(texts[0])
        return Labelled(tuple(texts), _label(place, row, *self.columns.names_for("label")))


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 over texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _fields_in(name: str) -> list[str]:
    """The field of a name, or the fields of a template."""
    if "{" not in name:
        return [name]
    try:
        return [part.split(".")[0].split("[")[0] for _, part, _, _ in Formatter().parse(name) if part is not None]
    except ValueError as error:
        raise UserError(f"{name!r} is no template ({error}): write fields as {{name}}") from error


class _Template(Formatter):
    """Like `str.format`, but a list becomes its items with commas between them."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text: str = super().format_field(", ".join(map(str, value)) if isinstance(value, list) else value, format_spec)
        return text


def _text(place: str, row: Row, name: str) -> str:
    try:
        value = _Template().vformat(name, (), row) if "{" in name else row[name]
    except (LookupError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{place} has no {name!r} (it has {sorted(row)})") from error
    if not isinstance(value, str):
        raise UserError(f"{place} has no text in field {name!r} but {_short(value)}: give text, or leave the row out")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{place} has half a surrogate pair in field {name!r}, which is no text: mend the row")
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
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
