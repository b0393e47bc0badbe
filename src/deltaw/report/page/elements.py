"""Parts of the page that need no JavaScript, and the data of those that do."""

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from deltaw.report.plain import in_html, visible

NO_LOSSES = "<p>No losses of these adapters are known: they belong to no run.</p>"


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names, each with what it stands for."""
    return "".join(f"<dt>{in_html(name)}</dt><dd>{in_html(value)}</dd>" for name, value in rows)


def table_of_losses(losses: Mapping[str, Any] | None) -> str:
    """The numbers behind the chart of losses."""
    if losses is None:
        return NO_LOSSES
    rows = [
        [f"{series['name']}", point["rank"], f"{point['loss']:.4f}", _interval(point)]
        for series in losses["series"]
        for point in series["points"]
    ]
    rows += [[line["name"], "", f"{line['loss']:.4f}", ""] for line in losses["lines"]]
    body = "".join(f"<tr>{''.join(f'<td>{in_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th scope=col>{in_html(name)}</th>" for name in ("what", "rank", losses["axis"], "from, to"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<details><summary>The losses as a table</summary><div class="scroll">{table}</div></details>'


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
        return float(f"{value:.6g}") if isfinite(value) else None
    return visible(value) if isinstance(value, str) else value
