"""What Figure 4 of the LoRA paper (§7.2) shows: two seeds of one rank at one layer, beside two Gaussian matrices."""

from typing import Any

from deltaw.analysis.against_base import RANDOM
from deltaw.analysis.compare import Pairing
from deltaw.analysis.study import control_pairs
from deltaw.exhibit.source import with_titles
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """Two arms that differ in the seed alone, and their control pairs.

    Raises:
        UserError: there are no two such arms.
    """
    seeds = view.subject.two_seeds()
    return [seeds, *control_pairs(seeds)]


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """Their cells at the middle layer, and the cells of the two Gaussian matrices."""
    cells = with_titles(tables.cells(view.subject.two_seeds(), view))
    random = tables.phi[tables.phi.projection == RANDOM]
    return {"cells": cells[cells.layer == view.middle], "random": random, "layer": view.middle}
