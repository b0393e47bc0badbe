"""The findings, in numbers and in words."""

import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from deltaw.analysis.output import SUMMARY_NUMBERS, SUMMARY_WORDS
from deltaw.report.findings import findings
from deltaw.report.numbers import Summary, summarise
from deltaw.report.words import markdown

__all__ = ["findings", "summarise", "write"]


def write(summary: Summary, folder: Path) -> None:
    """Write `summary.md` and `summary.json` into `folder`; a number that is not defined is null in JSON."""
    numbers = _without_nan(asdict(summary) | {"findings": findings(summary)})
    (folder / SUMMARY_NUMBERS).write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / SUMMARY_WORDS).write_text(markdown(summary), encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value
