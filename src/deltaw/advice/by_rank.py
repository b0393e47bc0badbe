"""Losses on the judged examples by rank, for a figure: trained arms, cuts, the base and controls."""

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from deltaw.advice.judged import Judged, Losses, judged_of, judged_rows
from deltaw.advice.lacking import lacking_in, undecidable
from deltaw.advice.largest import Largest
from deltaw.advice.recipes import Recipe, best, recipes_of
from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory

LEVEL = 0.95  # of the two-sided interval of a cut

# A row for each point or line of the figure.
COLUMNS = {
    "kind": "arm: a seed of the rank's best recipe on validation; cut: of the arm that the advice cuts, the best one "
    "of the largest rank; base; or the name of a control",
    "arm": "name of the arm; '' for the base and a control",
    "rank": "rank of the arm or of the cut; 0 for the base",
    "loss": "mean loss of the judged examples, in nats per token or row; of a control the mean over the seeds of "
    "its best recipe at its largest rank",
    "low": "of a cut: lower end of the 95 % interval, from its difference to the uncut arm; else NaN",
    "high": "as low, for the upper end",
}


def judged_in(runs: Sequence[RunDirectory]) -> Judged:
    """The judged arms of runs.

    Raises:
        UserError: the runs have no judged losses, or no arm can be judged by them.
    """
    rows = [judged_rows(run) for run in runs]
    if missing := lacking_in(runs, rows):
        raise UserError(missing.rstrip("."))
    judged = judged_of(runs, rows)
    if missing := undecidable(judged):
        raise UserError(missing.rstrip("."))
    return judged


def losses_by_rank(judged: Judged) -> pd.DataFrame:
    """The columns of `COLUMNS`; arms that diverged are left out."""
    return pd.DataFrame(_rows(judged), columns=list(COLUMNS))


def _rows(judged: Judged) -> Iterator[dict[str, Any]]:
    recipes = recipes_of(judged.task)
    for rank in sorted({recipe.rank for recipe in recipes}):
        for arm in _best_of(recipes, rank).arms:
            yield _row("arm", arm.name, rank, _mean(judged, arm.uncut))
    yield _row("base", "", 0, _mean(judged, np.mean([recipe.base for recipe in recipes], axis=0)))
    yield from _controls(judged)
    yield from _cuts(judged)


def _controls(judged: Judged) -> Iterator[dict[str, Any]]:
    """Each control at its largest rank."""
    for control in dict.fromkeys(arm.record["control"] for arm in judged.arms):
        recipes = recipes_of(arm for arm in judged.arms if arm.record["control"] == control)
        if control and recipes:
            recipe = _best_of(recipes, max(recipe.rank for recipe in recipes))
            yield _row(control, "", recipe.rank, _mean(judged, recipe.uncut))


def _best_of(recipes: Sequence[Recipe], rank: int) -> Recipe:
    """The recipe of this rank that validates best; there is one."""
    recipe = best(one for one in recipes if one.rank == rank)
    assert recipe is not None
    return recipe


def _cuts(judged: Judged) -> Iterator[dict[str, Any]]:
    """The cuts that the advice is about."""
    arm = Largest(judged).cut_arm
    if arm is None:
        return
    width = float(stdtrit(judged.clusters - 1, (1 + LEVEL) / 2))
    for k, losses in sorted(arm.cuts.items()):
        if np.isfinite(losses).all():
            loss, cost = _mean(judged, losses), judged.ratios(losses - arm.uncut)
            half = width * sqrt(cost.covariance[0, 0])
            yield _row("cut", arm.name, k, loss) | {"low": loss - half, "high": loss + half}


def _row(kind: str, arm: str, rank: int, loss: float) -> dict[str, Any]:
    return {"kind": kind, "arm": arm, "rank": rank, "loss": loss}


def _mean(judged: Judged, losses: Losses) -> float:
    return float(judged.ratios(losses).means[0])
