"""Saving a figure as PNG and PDF."""

import logging
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

DPI = 300

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns about dates in the fonts that matplotlib brings


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.png and `stem`.pdf, whose text can be searched. The same figure gives the same bytes."""
    figure.savefig(stem.with_suffix(".png"), dpi=DPI)
    with rc_context({"pdf.fonttype": 42}):  # TrueType: text can be searched, copied and edited
        figure.savefig(stem.with_suffix(".pdf"), dpi=DPI, metadata={"CreationDate": None})
