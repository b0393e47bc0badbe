"""What Figure 7 of the LoRA paper (App. H.2) shows: two seeds of one rank at several layers."""

from typing import Any

from deltaw.exhibit.fig4 import pairings
from deltaw.exhibit.source import with_titles
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View

__all__ = ["contents", "pairings"]


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """The cells of the two seeds at every layer of the view."""
    cells = with_titles(tables.cells(view.subject.two_seeds(), view))
    return {"cells": cells[cells.layer.isin(view.layers)], "layers": view.layers}
