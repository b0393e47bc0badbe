"""Whether the arms learned anything. Where one did not, there is no verdict about what learning causes."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import pandas as pd

from deltaw.analysis.losses import losses_of
from deltaw.analysis.snapshot import snapshot_of
from deltaw.exhibit.tables import Tables
from deltaw.run.adapter import Adapter
from deltaw.run.record import WITHOUT_THE_TASK

ONE_SIDED = 1.645  # standard errors that an arm without a true gain exceeds in 5 % of cases


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
    """What each of the arms learned, by the losses of its own run up to its own step."""
    zero = (tables.sites(arm, projections).zero for arm in arms)
    return [_learning(arm, len(at) > 0 and bool(at.all())) for arm, at in zip(arms, zero, strict=True)]


def _learning(arm: Adapter, is_zero: bool) -> Learning:
    nothing = "has a ΔW of 0" if is_zero else None
    losses = {str(row["arm"]): row for row in losses_of([arm]).to_dict("records")}
    snapshot = snapshot_of(arm)
    if snapshot is None or snapshot.name not in losses:
        return Learning(arm.name, None, None, "", nothing)
    row = losses[snapshot.name]
    gain, se = (None if isnan(row[name]) else float(row[name]) for name in ("gain", "gain_se"))
    return Learning(arm.name, gain, se, row["unit"], nothing or _doubt(losses, row, gain, se))


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
