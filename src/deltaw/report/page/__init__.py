"""`report.html`: the answer, the losses and φ as one file, which needs no network and no program but a browser."""

import html
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from deltaw.advice.answer import Advice
from deltaw.analysis.compare import Pairing
from deltaw.analysis.output import PAGE
from deltaw.errors import UserError
from deltaw.exhibit.colors import EXCESS, PHI
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.report.advice import NOT_KNOWN, sentences
from deltaw.report.findings import findings
from deltaw.report.merging import verdicts
from deltaw.report.numbers import Summary
from deltaw.report.page.elements import as_json, definitions, items, table_of_losses
from deltaw.report.page.grids import grids_of
from deltaw.report.page.losses import loss_against_rank
from deltaw.report.page.merging import merge_section
from deltaw.report.page.provenance import CITATION, provenance
from deltaw.report.page.training import curves_of, evolution_of
from deltaw.report.plain import in_html
from deltaw.run.directory import RunDirectory

PLOTLY = "plotly.min.js"
MOST_SENTENCES = 3  # of the answer
END = r"(?<=[.!?])\s+"  # of a sentence


def write(
    folder: Path,
    tables: Tables,
    view: View,
    pairings: Iterable[Pairing],
    summary: Summary,
    advice: Advice | None,
    runs: Sequence[RunDirectory],
    command: str,
) -> None:
    """Write `report.html` into `folder`, made from the tables and the records of the runs.

    Args:
        pairings: the pairs that the exhibits show.
        command: the command that makes this analysis again.

    Raises:
        UserError: Plotly is not installed.
    """
    losses = loss_against_rank(runs, tables.losses, advice)
    title = f"{summary.left.name} against {summary.right.name}"
    content: dict[str, Any] = {
        "losses": None if isinstance(losses, str) else losses,
        "grids": grids_of(tables, view, pairings),
        "evolution": evolution_of(tables, view),
        "curves": curves_of(runs),
        "colors": {"phi": PHI, "excess": EXCESS},
    }
    here = files(__name__)
    text = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=in_html(title),
        answer="".join(f"<p>{in_html(sentence)}</p>" for sentence in _answer(summary, advice)),
        remarks=_remarks(summary),
        merging=merge_section(summary.merge, tables.merge),
        losses=table_of_losses(losses),
        provenance=definitions(provenance(summary, runs, command)),
        citation=html.escape(CITATION),
        data=as_json(content),
        style=(here / "page.css").read_text(encoding="utf-8"),
        plotly=find_plotly().read_text(encoding="utf-8"),
        script=(here / "page.js").read_text(encoding="utf-8"),
    )
    (folder / PAGE).write_text(text, encoding="utf-8")


def _answer(summary: Summary, advice: Advice | None) -> list[str]:
    """The answer, and as many of the statements behind it as three sentences hold.

    Without an answer they are what the weights tell, and the last sentence says why no rank is advised.
    """
    if advice and advice.evidence:
        return _first(MOST_SENTENCES, sentences(advice, summary))
    lack = [re.split(END, advice.missing or NOT_KNOWN)[0]] if advice else []
    return [*_first(MOST_SENTENCES - len(lack), [*verdicts(summary.merge), *findings(summary)]), *lack]


def _first(most: int, said: Sequence[str]) -> list[str]:
    """The first statement, and those behind it up to so many sentences."""
    counts = [len(re.split(END, text)) for text in said]
    return [text for n, text in enumerate(said) if n == 0 or sum(counts[: n + 1]) <= most]


def _remarks(summary: Summary) -> str:
    said = [f"{remark}." for remark in summary.remarks]
    return f'<div class="remarks"><p>To bear in mind with all of this:</p>{items(said)}</div>' if said else ""


def find_plotly() -> Path:
    """The file of Plotly's JavaScript. Its Python package is not imported: nothing of it runs here.

    Raises:
        UserError: Plotly is not installed.
    """
    found = find_spec("plotly")
    path = Path(found.origin).parent / "package_data" / PLOTLY if found and found.origin else None
    if path is None or not path.is_file():
        raise UserError(f"{PAGE} is drawn by Plotly, which is not installed here: pip install plotly")
    return path
