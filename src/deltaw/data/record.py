"""Data sets as sources of rows, and the records that rows hold."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from deltaw.data.messages import Messages

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
    """Turns as a chat template takes them, the numbers of the assistant's turns that an arm learns, and tools."""

    messages: Messages
    learnt: tuple[int, ...]
    tools: list[Any] | None = None


class Text(NamedTuple):
    """A text; an arm learns to write all of it."""

    text: str


class Labelled(NamedTuple):
    """A text, or two that belong together, and their class by number or name."""

    texts: tuple[str, ...]
    label: int | str


Record = Pair | Chat | Text | Labelled


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 over texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
