"""A table in Markdown."""

from collections.abc import Sequence


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A line of names, then a line for each row."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
