"""A file of JSON lines: one object per line."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from deltaw.data.record import Row
from deltaw.errors import UserError


class JsonLines:
    """The objects of a JSON Lines file, read line by line.

    Args:
        path: the file, in UTF-8.

    Raises:
        UserError: the file cannot be opened; or, when it is read, it has no line, or a line that is no object.
    """

    def __init__(self, path: str):
        self.path = path
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise UserError(
                f"data.path={path} could not be read ({error.strerror}): give a file of JSON lines"
            ) from error

    def head(self) -> tuple[str, list[str]]:
        for place, row in self.rows([]):
            return place, list(row)
        raise UserError(f"data.path={self.path} is empty: give a file with one JSON object a line")

    def classes(self, field: str) -> None:
        return None

    def fingerprint(self, fields: list[str]) -> str:
        with Path(self.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        with Path(self.path).open("rb") as file:  # in bytes only \n ends a line, in text other separators do too
            for n, line in enumerate(file, 1):
                if line.strip():
                    yield f"{self.path}:{n}", _row(line, f"{self.path}:{n}")


def _row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 ({error.reason}): save the file as UTF-8 text") from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error}): one object a line is needed") from error
    if not isinstance(row, dict):
        raise UserError(f"{place} is a {type(row).__name__} and no object: one object a line is needed")
    return row
