"""What Figure 8 of the LoRA paper (App. H.3) shows: arms of several ranks against W, at one site."""

from typing import Any

from deltaw.analysis.against_base import RANDOM
from deltaw.analysis.compare import Pairing
from deltaw.errors import UserError
from deltaw.exhibit.source import with_titles
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View

MOST_ARMS = 3


def pairings(view: View) -> list[Pairing]:
    """None: arms are compared with W instead of with each other.

    Raises:
        UserError: W of a site is not found, or an arm is a DoRA.
    """
    for site in view.middle_sites:
        view.subject.find_weight(site)
    if dora := [arm.name for arm in view.subject.ranks() if arm.direction_only]:
        raise UserError(f"{dora} are DoRAs, whose ΔW also has a magnitude: they cannot be measured against W")
    return []


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """A panel for each of the arms with the largest ranks, and one for a Gaussian A."""
    projection = view.middle_sites[0].projection
    cells = with_titles(tables.phi[(tables.phi.left == "W") & (tables.phi.projection == projection)])
    panels = {label: cells[cells.right == arm] for arm, label in _arms(view).items()}
    return {"panels": panels | {RANDOM: cells[cells.right == RANDOM]}, "layer": view.middle}


def _arms(view: View) -> dict[str, str]:
    """Name → label of the arms with the largest ranks; the label is the rank where no two arms share it."""
    site = view.middle_sites[0]
    arms = view.subject.ranks()[-MOST_ARMS:]
    ranks = {arm.name: arm.sites[site].rank for arm in arms}
    if len(set(ranks.values())) < len(arms):
        return {arm.name: arm.name for arm in arms}
    return {name: f"r={rank}" for name, rank in ranks.items()}
