"""Prompts and completions from a file of the user's: one JSON object a line."""

import json
from pathlib import Path

from deltaw.cli import UserError
from deltaw.data.pairs import Pair


def read(path: str, prompt: str, completion: str) -> list[Pair]:
    """The pairs of a JSON Lines file, in its order.

    Args:
        path: the file.
        prompt: field that holds the prompt.
        completion: field that holds the completion.

    Raises:
        UserError: no such file, or a line that is no object with both fields as text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.path={path} could not be read as UTF-8 text ({error})") from error
    lines = enumerate(text.split("\n"), 1)  # JSON allows the other line separators of Unicode within a text
    return [_pair(line, f"{path}:{n}", (prompt, completion)) for n, line in lines if line.strip()]


def _pair(line: str, place: str, fields: tuple[str, str]) -> Pair:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place} is not JSON ({error}): one object a line is needed") from error
    for name in fields:
        if not isinstance(record, dict) or not isinstance(record.get(name), str):
            keys = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise UserError(
                f"{place} has no text in field {name!r} (it has {keys}): "
                "set data.prompt and data.completion to the names of your fields"
            )
    return Pair(record[fields[0]], record[fields[1]])
