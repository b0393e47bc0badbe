"""The bundled text: functions of the standard library, each completed by the names of the functions that it calls.

    def clear(self):                        # prompt: the library's source, without its indentation
        self._data.clear()
        self._notify(reset(self))

    calls = (                               # the prompt's last line
    clear, _notify, reset)                  # completion

The completion can be copied from the prompt, so arms must learn to read the prompt: on completions of other prompts
they reach less than half of the gain. The text is read from the running interpreter, and another
Python has a slightly different library; `run.json` records the text's fingerprint.
"""

import ast
import textwrap
import warnings
from collections.abc import Iterator
from functools import cached_property
from platform import python_version

from deltaw.data.library import task_files
from deltaw.data.record import Pair, Row, fingerprint

SIZES = range(40, 320)  # characters of a function
REFERENCE_PYTHON = "3.11.7"
REFERENCE_FINGERPRINT = "ac6c53fe29eaddb2f7ac50de552dbd7801ea8dc759c1165f23fffd129016da26"


class Calls:
    """All pairs of the running interpreter's library, in the order of its files, each function once."""

    @cached_property
    def pairs(self) -> list[Pair]:
        """Read from the library when first asked for; warns if they differ from the pairs of the documented numbers."""
        texts = (path.read_text(encoding="utf-8") for path in task_files())
        pairs = list(dict.fromkeys(pair for text in texts for pair in _pairs(text)))
        if _fingerprint(pairs) != REFERENCE_FINGERPRINT:
            warnings.warn(
                f"the library of Python {python_version()} differs from that of Python {REFERENCE_PYTHON}, on which "
                "the documented numbers were measured: expect slightly different losses and φ",
                stacklevel=2,
            )
        return pairs

    def head(self) -> tuple[str, list[str]]:
        return "the bundled text", list(Pair._fields)

    def classes(self, field: str) -> None:
        return None

    def fingerprint(self, fields: list[str]) -> str:
        return _fingerprint(self.pairs)

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        for n, pair in enumerate(self.pairs):
            yield f"function {n} of the bundled text", pair._asdict()


def _fingerprint(pairs: list[Pair]) -> str:
    return fingerprint(text for pair in pairs for text in pair)


def _pairs(source: str) -> Iterator[Pair]:
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            if len(text) in SIZES and (names := _called_names(node)):
                yield Pair(f"{text}\n\ncalls = (", ", ".join(names) + ")")


def _called_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of the functions and methods that its arguments and body call, each once, in the order of the text."""
    parts = [function.args, *function.body]
    calls = [node.func for part in parts for node in ast.walk(part) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.end_lineno, call.end_col_offset))
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return list(dict.fromkeys(filter(None, names)))
