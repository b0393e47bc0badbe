"""A file of JSON: one object per line, or one list of objects."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deltaw.data.record import Row
from deltaw.errors import UserError

# How files begin that hold no JSON in UTF-8, and what to do with them.
_OTHER_FILES = {
    b"\x1f\x8b": "is compressed: unpack it, or give data=hub, which reads it as it is",
    b"PAR1": "is a parquet file: give data=hub, which reads it",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: save its rows as JSON lines, or as CSV for data=hub",
    b"\x28\xb5\x2f\xfd": "is compressed: unpack it, or give data=hub, which reads it as it is",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
}
_TABLES = (".csv", ".tsv")


class JsonLines:
    """The objects of a JSON Lines file, read line by line; a list of objects is read as a whole.

    Args:
        path: the file, in UTF-8.

    Raises:
        UserError: the file cannot be opened or is of another kind; or, when it is read, it has no line, or a line that
            is no object.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        if self.path.is_dir():
            raise UserError(f"{path} is a folder: give a file of JSON lines, or data=hub for a folder of data files")
        try:
            with self.path.open("rb") as file:
                start = file.read(64)
        except OSError as error:
            raise UserError(f"{path} could not be read ({error.strerror}): give a file of JSON lines") from error
        for first, words in _OTHER_FILES.items():
            if start.startswith(first):
                raise UserError(f"{path} {words}")
        if b"\0" in start:
            raise UserError(f"{path} is no text in UTF-8: save it as UTF-8")
        if self.path.suffix.lower() in _TABLES:
            raise UserError(f"{path} is a table: give data=hub, which reads it")
        self.is_list = start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")

    def head(self) -> tuple[str, list[str]]:
        for place, row in self.rows([]):
            return place, list(row)
        raise UserError(f"{self.path} is empty: give a file with one JSON object a line")

    def classes(self, field: str) -> None:
        return None

    def fingerprint(self, fields: list[str]) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        with self.path.open("rb") as file:  # in bytes only \n ends a line, in text other separators do too
            if self.is_list:
                for n, row in enumerate(_parsed(file.read(), str(self.path))):
                    yield f"{self.path} [{n}]", _row(row, f"{self.path} [{n}]")
                return
            for n, line in enumerate(file, 1):
                if line.strip():
                    place = f"{self.path}:{n}"
                    yield place, _row(_parsed(line, place), place)


def _parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 ({error.reason}): save the file as UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON ({error}): one object a line is needed, or a list of objects") from error


def _row(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{place} is a {type(row).__name__} and no object: one object a line is needed")
    return row
