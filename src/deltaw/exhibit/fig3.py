"""What Figure 3 of the LoRA paper (§7.2) shows: left against right at one layer."""

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
    """Their cells at the middle layer."""
    cells = with_titles(tables.cells(view.subject.pairing, view))
    return {"cells": cells[cells.layer == view.middle], "layer": view.middle}
