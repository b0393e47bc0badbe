"""What Figure 4 of the LoRA paper (§7.2) shows: two seeds of one rank at one layer, beside two Gaussian matrices."""

from typing import Any

from deltaw.analysis.against_base import RANDOM
from deltaw.analysis.compare import Pairing
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """Two arms that differ in the seed alone.

    Raises:
        UserError: there are no two such arms.
    """
    return [view.subject.two_seeds()]


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """Their cells at the middle layer, and the cells of the two Gaussian matrices."""
    (seeds,) = pairings(view)
    cells = tables.cells(seeds, view)
    random = tables.phi[tables.phi.projection == RANDOM]
    return {"cells": cells[cells.layer == view.middle], "random": random, "layer": view.middle}
