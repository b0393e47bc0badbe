"""Whether the arms learned anything. Where one did not, no verdict about the task is given."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import pandas as pd

from deltaw.exhibit.tables import Tables
from deltaw.run.adapter import Adapter

WITHOUT_THE_TASK = ("shuffled", "random")  # controls that learn something else
ONE_SIDED = 1.645  # standard errors that a true gain of 0 exceeds in 5 % of cases


@dataclass(frozen=True)
class Learning:
    """One arm's gain in validation loss, in nats per `unit`.

    Attributes:
        gain: loss at the start minus loss at the end; None where no loss is recorded.
        se: its standard error over the validation examples; None where these are not recorded.
        unit: token or row; "" where no loss is recorded.
        doubt: why the arm cannot be said to have learned, as the end of a sentence about it; None where it has learned,
            or where no loss tells.
    """

    arm: str
    gain: float | None
    se: float | None
    unit: str
    doubt: str | None


def learning_of(tables: Tables, arms: Sequence[Adapter], projections: Collection[str]) -> list[Learning]:
    """What each of the arms learned."""
    rows = {str(row["arm"]): row for row in tables.losses.to_dict("records")}
    return [_learning(rows, arm, _is_zero(tables.sites(arm, projections))) for arm in arms]


def _learning(losses: dict[str, dict[Hashable, Any]], arm: Adapter, is_zero: bool) -> Learning:
    nothing = "has a ΔW of 0" if is_zero else None
    row = losses.get(arm.name) or losses.get(_name_beside_other_runs(arm))
    if row is None:
        return Learning(arm.name, None, None, "", nothing)
    gain, se = (None if isnan(row[name]) else float(row[name]) for name in ("gain", "gain_se"))
    return Learning(arm.name, gain, se, row["unit"], nothing or _doubt(losses, row, gain, se))


def _name_beside_other_runs(arm: Adapter) -> str:
    """The arm's name in `columns.LOSSES` where two runs have an arm of this name."""
    return f"{arm.origin.run.name}/{arm.origin.arm}" if arm.origin else ""


def _is_zero(sites: pd.DataFrame) -> bool:
    """Whether ΔW is 0 at every site where it was measured."""
    of_update = sites[sites.basis.isin(["input", "output"])]
    return len(of_update) > 0 and bool((of_update.numerical_rank == 0).all())


def _doubt(
    losses: dict[str, dict[Hashable, Any]], row: dict[Hashable, Any], gain: float | None, se: float | None
) -> str | None:
    if gain is None:
        return "diverged"
    if gain <= ONE_SIDED * (se or 0):
        return f"has no clear gain (its validation loss went from {row['start']:.2f} to {row['end']:.2f})"
    same = [one for one in losses.values() if all(one[key] == row[key] for key in ("rank", "seed", "lr", "variant"))]
    better = [one["arm"] for one in same if one["control"] in WITHOUT_THE_TASK and one["end"] <= row["end"]]
    return f"ended no lower than its control {better[0]}" if better and pd.isna(row["control"]) else None
