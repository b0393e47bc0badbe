"""The losses that the answer rests on: of every judged arm of one run or several, side by side on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from deltaw.analysis.experiment import arms_of
from deltaw.maths.ratio import Ratios, ratios
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import JUDGED
from deltaw.run.record import SHADOW, ArmRecord, settings_of

Losses = Float64[np.ndarray, " examples"]  # of each judged example, summed over its labels, in nats
UNCUT = 0
LARGEST = 1e100  # nats of an example, whose square float64 holds: above it, an arm has diverged


@dataclass(frozen=True, eq=False)
class JudgedArm:
    """One arm, with its losses on the judged examples; NaN after a divergence.

    Attributes:
        name: as `deltaw.analysis.experiment.arms_of` gives it.
        run: where it was trained.
        validation: mean loss at the last validation; infinite after a divergence.
        base: losses before the first step.
        uncut: losses after the last.
        cuts: losses of the arm cut to rank k, by k.
        dropped: losses without ΔW at some sites, by what was dropped.
    """

    name: str
    run: RunDirectory
    record: ArmRecord
    validation: float
    base: Losses
    uncut: Losses
    cuts: dict[int, Losses] = field(default_factory=dict)
    dropped: dict[str, Losses] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether a loss of the arm or of its base is not finite."""
        return not (isfinite(self.validation) and bool(np.isfinite(self.base + self.uncut).all()))

    @property
    def recipe(self) -> tuple[object, ...]:
        """The settings that its other seeds share, and its controls."""
        return settings_of(self.record, seed=0)


@dataclass(frozen=True, eq=False)
class Judged:
    """All judged arms of one run or several.

    Attributes:
        arms: of the task and controls, in the order of the configs.
        labels: of each example, at least 1.
        groups: the number of each example's group.
        step: of the arms.
        passes: forward passes over the examples that these losses took.
    """

    arms: list[JudgedArm]
    labels: Int64[np.ndarray, " examples"]
    groups: Int64[np.ndarray, " examples"]
    step: int
    passes: int

    @property
    def task(self) -> list[JudgedArm]:
        """The arms of the task."""
        return [arm for arm in self.arms if arm.record["control"] is None]

    @property
    def clusters(self) -> int:
        """Independent groups of examples."""
        return len(np.unique(self.groups))

    def ratios(self, *columns: Losses) -> Ratios:
        """The mean of each column per label, with their covariance over the groups."""
        return ratios(np.stack(columns, axis=1), self.labels, self.groups)


def judged_rows(run: RunDirectory) -> pd.DataFrame:
    """The rows of the judged examples that have labels, each once; `cut` is 0 where the arm is not cut.

    Raises:
        UserError: the evaluation cannot be read.
    """
    table = run.evaluation()
    table = table[(table.split == JUDGED) & (table.labels > 0)]
    table = table.assign(cut=table.cut.fillna(UNCUT).astype("int64"))
    return table.drop_duplicates(["arm", "step", "cut", "dropped", "example"])


def judged_of(runs: Sequence[RunDirectory], rows: Sequence[pd.DataFrame]) -> Judged:
    """The judged arms of runs that `deltaw.advice.lacking` finds nothing lacking in.

    Args:
        runs: one, or several of one experiment.
        rows: of each run, from `judged_rows`; the examples and the last step are the same in all.
    """
    examples = rows[0].drop_duplicates("example").sort_values("example")
    numbers, step = examples.example.to_numpy(), int(rows[0].step.max())
    losses = {run.path: _losses(table, numbers) for run, table in zip(runs, rows, strict=True)}
    ends = {run.path: run.validation().end for run in runs}
    arms = []
    for name, (run, record) in arms_of(runs).items():
        mine = {key[1:]: values for key, values in losses[run.path].items() if key[0] == record["name"]}
        base, uncut = mine.get((0, UNCUT, "")), mine.get((step, UNCUT, ""))
        if record["control"] != SHADOW and base is not None and uncut is not None:
            end = ends[run.path].get(record["name"], inf)
            cuts = {cut: values for (at, cut, dropped), values in mine.items() if at and cut != UNCUT and not dropped}
            parts = {dropped: values for (at, cut, dropped), values in mine.items() if at and cut == UNCUT and dropped}
            arms.append(JudgedArm(name, run, record, end if isfinite(end) else inf, base, uncut, cuts, parts))
    passes = sum(len(of_run) for of_run in losses.values())
    return Judged(arms, examples.labels.to_numpy(), examples.group.to_numpy(), step, passes)


def _losses(rows: pd.DataFrame, examples: Int64[np.ndarray, " examples"]) -> dict[Any, Losses]:
    """Losses on all examples by arm, step, cut and what was dropped, where all were judged."""
    found = {}
    for key, table in rows.groupby(["arm", "step", "cut", "dropped"]):
        values = table.set_index("example").loss.reindex(examples)
        if len(table) == len(examples):
            found[key] = values.where(values.abs() < LARGEST).to_numpy(dtype=float)
    return found
