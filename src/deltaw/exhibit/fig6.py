"""What Figure 6 of the LoRA paper (App. H.1) shows: left against right at several layers."""

from typing import Any

from deltaw.analysis.compare import Pairing
from deltaw.analysis.study import control_pairs
from deltaw.exhibit.source import with_titles
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """Left with right, and their control pairs."""
    return [view.subject.pairing, *control_pairs(view.subject.pairing)]


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """Their cells at every layer of the view."""
    cells = with_titles(tables.cells(view.subject.pairing, view))
    return {"cells": cells[cells.layer.isin(view.layers)], "layers": view.layers}
