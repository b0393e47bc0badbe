"""Parts of the page that need no JavaScript, and the data of those that do."""

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from deltaw.report.plain import in_html, visible

DIGITS = 5  # of a number in the data: the page shows no more


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names, each with what it stands for."""
    return "".join(f"<dt>{in_html(name)}</dt><dd>{in_html(value)}</dd>" for name, value in rows)


def items(sentences: Iterable[str]) -> str:
    """The sentences as a list."""
    return f"<ul>{''.join(f'<li>{in_html(sentence)}</li>' for sentence in sentences)}</ul>"


def table(names: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table with a head, which scrolls by itself where it is wide."""
    head = "".join(f"<th scope=col>{in_html(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{in_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, content: str) -> str:
    """Content that a click on its title opens."""
    return f"<details><summary>{in_html(title)}</summary>{content}</details>"


def table_of_losses(losses: Mapping[str, Any] | str) -> str:
    """The numbers behind the chart of losses, or the sentence why there is none."""
    if isinstance(losses, str):
        return f"<p>{in_html(losses)}</p>"
    rows = [
        [f"{series['name']}", point["rank"], f"{point['loss']:.4f}", _interval(point)]
        for series in losses["series"]
        for point in series["points"]
    ]
    rows += [[line["name"], "", f"{line['loss']:.4f}", ""] for line in losses["lines"]]
    return folded("The losses as a table", table(("what", "rank", losses["axis"], "from, to"), rows))


def _interval(point: Mapping[str, Any]) -> str:
    return "" if point["low"] == point["high"] else f"{point['low']:.4f}, {point['high']:.4f}"


def as_json(content: Any) -> str:
    """The content as JSON that no script element ends in: `<` is an escape. What is no finite number is null."""
    return json.dumps(_harmless(content), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _harmless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _harmless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_harmless(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
    return visible(value) if isinstance(value, str) else value
