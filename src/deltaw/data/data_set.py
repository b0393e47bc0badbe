"""What a run reads: the rows to learn and, where the user gives them, the rows to hold out."""

import hashlib
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from deltaw.data.reader import Columns, Reader
from deltaw.data.record import Record, Source
from deltaw.errors import UserError


class Read(NamedTuple):
    """A row as it was read.

    Attributes:
        place: where the row stands, as an error names it.
        record: what it holds.
        group: the number of its group: of the value of data.group, or its own.
        held_out: whether it comes from the rows to hold out.
    """

    place: str
    record: Record
    group: int
    held_out: bool


class DataSet:
    """Records of one kind, from one source or two; making it reads the first row of each.

    Args:
        source: the rows to learn.
        columns: names of the fields to read.
        task: causal, seq2seq or classification.
        group: a field whose examples of one value stay on one side, learnt or held out; None for none.
        validation: rows that are all held out; None to hold out some of `source`.

    Attributes:
        group: as given.
        classes: names of the classes by number, if `source` lists them.

    Raises:
        UserError: a source is empty, or its first row lacks what the task reads; or the two hold records of two kinds.
    """

    def __init__(
        self, source: Source, columns: Columns, task: str, group: str | None = None, validation: Source | None = None
    ):
        self.group, self.sources = group, [source] if validation is None else [source, validation]
        heads = [one.head() for one in self.sources]
        self.readers = [Reader(columns, task, group, fields, place) for place, fields in heads]
        first, last = self.readers[0], self.readers[-1]
        if first.kind is not last.kind:
            raise UserError(
                f"{first.names()} is read of data.path, and {last.names()} of data.validation_path: "
                "give both the same fields"
            )
        (label,) = columns.names_for("label")
        classes = [one.classes(label) if task == "classification" else None for one in self.sources]
        if classes[0] != classes[-1]:
            raise UserError(
                f"data.path has the classes {classes[0]}, and data.validation_path has {classes[-1]}: "
                "give both the same classes"
            )
        self.classes = classes[0]

    def settings(self) -> list[object]:
        """What the records depend on besides the content of the sources."""
        return [self.readers[0].kind.__name__, *(repr(reader.columns) for reader in self.readers), self.group]

    def fingerprint(self) -> str:
        """SHA-256 over the content.

        Raises:
            UserError: the rows to hold out are the rows to learn.
        """
        pairs = zip(self.sources, self.readers, strict=True)
        parts = [source.fingerprint(reader.names()) for source, reader in pairs]
        if len(parts) == 1:
            return parts[0]
        if parts[0] == parts[1]:
            raise UserError("data.validation_path holds the same rows as data.path: give others")
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def records(self) -> Iterator[Read]:
        """Every record, those to learn first.

        Raises:
            UserError: a row cannot be read.
        """
        alone, values = count(), dict[str, int]()
        for n, (source, reader) in enumerate(zip(self.sources, self.readers, strict=True)):
            for place, row in source.rows(reader.names()):
                value = reader.group_of(place, row)
                group = next(alone) if value is None else values.setdefault(value, len(values))
                yield Read(place, reader(place, row), group, held_out=n == 1)
