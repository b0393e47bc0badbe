"""What the figure of training shows: the snapshots of an arm against its last and its next one."""

from typing import Any

from deltaw.analysis.compare import Pairing
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """Every snapshot of either arm with the last and with the next one.

    Raises:
        UserError: neither arm has two snapshots.
    """
    return view.subject.over_time()


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """What the snapshots of one arm share."""
    pairs = tables.comparison.pairs
    of_one_arm = (pairs.left == pairs.right) & (pairs.step_left != pairs.step_right)
    return {"pairs": pairs[of_one_arm & pairs.projection.isin(view.projections) & (pairs.basis == view.basis)]}
