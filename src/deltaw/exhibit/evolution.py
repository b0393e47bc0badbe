"""What the figure of training shows: the snapshots of an arm against its last and its next one."""

from typing import Any

import pandas as pd

from deltaw.analysis.compare import Pairing
from deltaw.exhibit.source import with_titles
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """Every snapshot of either arm with the last and with the next one.

    Raises:
        UserError: neither arm has two snapshots.
    """
    return view.subject.over_time()


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """What the snapshots of one arm share, in the order of the projections of `view`."""
    pairs = tables.comparison.pairs
    of_one_arm = (pairs.left == pairs.right) & (pairs.step_left != pairs.step_right)
    shown = pairs[of_one_arm & (pairs.basis == view.basis)]
    in_order = [shown[shown.projection == projection] for projection in view.projections]
    return {"pairs": with_titles(pd.concat(in_order))}
