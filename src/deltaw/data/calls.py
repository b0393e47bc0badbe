"""The bundled text: functions of the standard library, each completed by the names of what it calls.

    def clear(self):                        # prompt, as it stands in the library, indented as if on top level
        self._data.clear()
        self._notify(reset(self))

    calls = (                               # still prompt
    clear, _notify, reset)                  # completion

The completion follows from the prompt and can be copied from it, so that arms must learn to read the prompt: on
completions dealt to other prompts they reach less than half of the gain (README). It is read from the running
interpreter, so that another Python gives slightly different text; `run.json` holds its fingerprint.
"""

import ast
import textwrap
import warnings
from collections.abc import Iterator
from platform import python_version

from deltaw.data.library import task_files
from deltaw.data.record import Pair, Row, fingerprint

SIZES = range(40, 320)  # characters of a function
README_PYTHON = "3.11.7"
README_FINGERPRINT = "ac6c53fe29eaddb2f7ac50de552dbd7801ea8dc759c1165f23fffd129016da26"


class Calls:
    """All pairs of the running interpreter, in the order of its files; each function once.

    Warns where they are not those that the README's numbers were measured on.
    """

    def __init__(self) -> None:
        self.pairs = list(
            dict.fromkeys(pair for path in task_files() for pair in _pairs(path.read_text(encoding="utf-8")))
        )
        if self.fingerprint([]) != README_FINGERPRINT:
            warnings.warn(
                f"Python {python_version()} has another library than Python {README_PYTHON}, which the README's "
                "numbers were measured on: expect slightly other losses and φ",
                stacklevel=2,
            )

    def head(self) -> tuple[str, list[str]]:
        return "the bundled text", list(Pair._fields)

    def classes(self, field: str) -> None:
        return None

    def fingerprint(self, fields: list[str]) -> str:
        return fingerprint(text for pair in self.pairs for text in pair)

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        for n, pair in enumerate(self.pairs):
            yield f"function {n} of the bundled text", pair._asdict()


def _pairs(source: str) -> Iterator[Pair]:
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            if len(text) in SIZES and (names := _called(node)):
                yield Pair(f"{text}\n\ncalls = (", ", ".join(names) + ")")


def _called(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of the functions and methods that it calls, its decorators not, each once in the order of the text."""
    parts = [function.args, *function.body]
    calls = [node.func for part in parts for node in ast.walk(part) if isinstance(node, ast.Call)]
    calls.sort(key=lambda called: (called.end_lineno, called.end_col_offset))
    names = [called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "") for called in calls]
    return list(dict.fromkeys(filter(None, names)))
