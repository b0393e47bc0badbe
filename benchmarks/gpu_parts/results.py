"""What a part found, in OUT as soon as it is known: a run that is cut off has told what it knew."""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any


class Results:
    """A list of measurements in a JSON file, written whole at each change.

    Args:
        file: that holds them.
        about: what all of them share.
    """

    def __init__(self, file: Path, **about: Any):
        self.file, self.found = file, {**about, "results": []}
        self._write()

    def add(self, **measured: Any) -> None:
        """Note a measurement."""
        self.found["results"].append({key: _or_none(value) for key, value in measured.items()})
        self._write()

    @contextmanager
    def measuring(self, **what: Any) -> Iterator[None]:
        """Note an error as the result, and let the other measurements go on."""
        try:
            yield
        except Exception as error:  # whatever it is: the rest of the machine's time is too dear to lose
            traceback.print_exc()
            self.add(**what, error=in_a_line(error))

    def note(self, **about: Any) -> None:
        """Note something beside the measurements."""
        self.found |= {key: _or_none(value) for key, value in about.items()}
        self._write()

    def _write(self) -> None:
        new = self.file.with_name(f".{self.file.name}.new")  # deltaw's own function would load it before its tests
        new.write_text(json.dumps(self.found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(self.file)


def _or_none(value: Any) -> Any:
    """What is not a number is null in JSON."""
    return None if isinstance(value, float) and isnan(value) else value


def note_failure(file: Path, error: Exception) -> None:
    """Add to what a part has found, if anything, that it ended with `error`."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": []}
    found["results"].append({"error": in_a_line(error)})
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def in_a_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
