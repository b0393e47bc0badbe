"""Validation losses of the arms of runs with their standard errors, metrics, and the share of the task's gain that a
control reaches.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from deltaw.analysis import columns
from deltaw.maths.ratio import ratio
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import MEASURED
from deltaw.run.record import settings_of

_LARGEST = 1e100  # nats of an example, whose square float64 holds


def losses_of(adapters: Sequence[Adapter]) -> pd.DataFrame:
    """Losses and metrics of every validated arm of the runs that the adapters come from.

    Returns:
        A row per arm; the columns are `columns.LOSSES`, without the metrics that no run recorded.
    """
    steps = {adapter.origin.run: adapter.origin.step for adapter in adapters if adapter.origin}
    rows = [row for run, step in steps.items() for row in _rows(RunDirectory(run), step)]
    table = pd.DataFrame(rows, columns=["run", "scale", *columns.LOSSES])
    scales_differ = table.groupby("variant").scale.transform("nunique") > 1
    table = table.assign(variant=table.variant.where(~scales_differ, table.scale))
    table = table.drop(columns=[name for name in MEASURED if table[name].isna().all()])
    ambiguous = table.arm.duplicated(keep=False)
    return table.assign(arm=table.arm.where(~ambiguous, table.run + "/" + table.arm)).drop(columns=["run", "scale"])


def _rows(run: RunDirectory, step: int) -> Iterator[dict[str, object]]:
    """A row per arm, with two more columns: run, and scale (alpha and scaling)."""
    losses = run.validation(step)
    evaluation = run.evaluation()
    of_examples = dict(iter(evaluation[evaluation.step <= step].groupby("arm")))
    gains = losses.start - losses.end
    arms = {name: arm for name, arm in run.arms.items() if name in losses.index}
    gains_of_task = {settings_of(arm): gains[name] for name, arm in arms.items() if arm["control"] is None}
    for name, arm in arms.items():
        gain_of_task = gains_of_task.get(settings_of(arm), np.nan)
        end_se, gain_se = _errors(of_examples[name]) if name in of_examples else (np.nan, np.nan)
        yield {
            "run": run.path.name,
            "scale": f"a{arm['alpha']:g}-{arm['scaling']}",
            "arm": name,
            "control": arm["control"],
            "rank": arm["rank"],
            "seed": arm["seed"],
            "lr": arm["lr"],
            "variant": arm.get("variant", ""),
            "unit": run.unit,
            "start": losses.start[name],
            "end": losses.end[name],
            "end_se": end_se,
            "gain": gains[name],
            "gain_se": gain_se,
            "share": gains[name] / gain_of_task if arm["control"] and gain_of_task > 0 else np.nan,
        } | {metric: losses.loc[name, metric] for metric in MEASURED}


def _errors(evaluation: pd.DataFrame) -> tuple[float, float]:
    """Standard errors of an arm's loss at the last step of its evaluation, and of what it gained since the first.

    NaN where no example that both steps have counts a label, or where a loss cannot be squared.
    """
    by_step = evaluation.drop_duplicates(["step", "example"]).set_index("example").groupby("step")
    start, end = by_step.get_group(evaluation.step.min()), by_step.get_group(evaluation.step.max())
    both = end.assign(start=start.loss).dropna()
    if not both.labels.sum() or not (both[["start", "loss"]].abs() < _LARGEST).all(axis=None):
        return np.nan, np.nan
    labels = both.labels.to_numpy()
    return ratio(both.loss.to_numpy(), labels)[1], ratio((both.start - both.loss).to_numpy(), labels)[1]
