"""What the page shows of training: the loss of each arm, and how its subspaces settle."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from deltaw.analysis.experiment import arms_of
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.run.directory import RunDirectory
from deltaw.run.record import SHADOW

LOSSES = {"train/loss": "training", "val/loss": "validation"}
MOST_POINTS = 400  # of a curve: a screen shows no more


def curves_of(runs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """The losses of every arm by step, in nats; shadows have none."""
    metrics = {run.path: run.metrics() for run in runs}
    curves = []
    for arm, (run, record) in arms_of(runs).items():
        table = metrics[run.path]
        of_arm = table[table.arm == record["name"]] if record["control"] != SHADOW else table[:0]
        for name, title in LOSSES.items():
            points = _thinned(of_arm[of_arm.name == name].sort_values("step"))
            if len(points):
                curves.append(
                    {"arm": arm, "kind": title, "steps": points.step.tolist(), "losses": points.value.tolist()}
                )
    return curves


def _thinned(points: pd.DataFrame) -> pd.DataFrame:
    """Every n-th point, counted from the last."""
    every = -(-len(points) // MOST_POINTS) or 1
    return points[::-1][::every][::-1]


def evolution_of(tables: Tables, view: View) -> dict[str, Any] | None:
    """φ of each snapshot with the arm's last one at every site, beside chance, as columns, and the basis of all of it.

    None where no snapshots were compared.
    """
    pairs = tables.comparison.pairs
    of_one_arm = pairs[(pairs.left == pairs.right) & (pairs.basis == view.basis) & (pairs.step_left < pairs.step_right)]
    if of_one_arm.empty:
        return None
    last = of_one_arm.groupby("left").step_right.transform("max")
    shown = of_one_arm[of_one_arm.step_right == last]
    names = ["left", "step_left", "step_right", "layer", "projection"]
    names += ["phi_first", "null_first", "phi_corner", "null_corner"]
    return {"basis": view.basis} | {name: shown[name].tolist() for name in names}
