"""The paper's figures and tables, and one of training: each made from the tables alone."""

import logging
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

DPI = 300

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of dates inside matplotlib's own fonts


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.pdf, with real text. The same figure gives the same bytes."""
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    figure.savefig(png, dpi=DPI)
    with rc_context({"pdf.fonttype": 42}):  # TrueType: text can be searched, copied and edited
        figure.savefig(pdf, dpi=DPI, metadata={"CreationDate": None})
    return [png, pdf]
