"""The advice and the findings, in numbers and in words."""

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from deltaw.advice.answer import Advice
from deltaw.analysis.output import ADVICE, SUMMARY_NUMBERS, SUMMARY_WORDS
from deltaw.report.advice import sentences
from deltaw.report.findings import findings
from deltaw.report.merging import verdicts
from deltaw.report.numbers import Summary, summarise
from deltaw.report.words import markdown

__all__ = ["findings", "sentences", "summarise", "verdicts", "write"]


def write(summary: Summary, advice: Advice | None, folder: Path) -> None:
    """Write `summary.md`, `summary.json` and, with an advice, `advice.json` into `folder`.

    A number that is not defined is null in JSON.
    """
    answer = asdict(advice) | {"sentences": sentences(advice, summary)} if advice else None
    _write(folder / SUMMARY_NUMBERS, asdict(summary) | {"findings": findings(summary), "advice": answer})
    if answer:
        _write(folder / ADVICE, answer)
    (folder / SUMMARY_WORDS).write_text(markdown(summary, advice), encoding="utf-8")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(_without_nan(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
