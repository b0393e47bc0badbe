"""Validation losses of the arms of runs with their standard errors, metrics, and the share of the task's gain that a
control reaches.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deltaw.analysis import columns
from deltaw.analysis.experiment import arms_of
from deltaw.maths.ratio import ratio
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import MEASURED, VALIDATION
from deltaw.run.record import settings_of

_LARGEST = 1e100  # nats of an example, whose square float64 holds


def losses_of(adapters: Sequence[Adapter]) -> pd.DataFrame:
    """Losses and metrics of every validated arm of the experiments that the adapters come from.

    A run without one of the adapters is read up to the step of an adapter of its experiment.

    Returns:
        A row per arm; the columns are `columns.LOSSES`, without the metrics that no run recorded.
    """
    origins = [adapter.origin for adapter in adapters if adapter.origin]
    experiments = {run: origin.runs for origin in origins for run in origin.runs}
    steps = {run: origin.step for origin in origins for run in origin.runs}
    steps |= {origin.run: origin.step for origin in origins}
    runs = [RunDirectory(run) for run in steps]
    names = {(run.path, arm["name"]): name for name, (run, arm) in arms_of(runs).items()}
    rows = [row | {"run": run.path} for run in runs for row in _rows(run, steps[run.path])]
    gains_of_task = {(experiments[row["run"]], row["settings"]): row["gain"] for row in rows if row["control"] is None}
    for row in rows:
        gain_of_task = gains_of_task.get((experiments[row["run"]], row["settings"]), np.nan)
        row["share"] = row["gain"] / gain_of_task if row["control"] and gain_of_task > 0 else np.nan
        row["arm"] = names[row["run"], row["arm"]]
    table = pd.DataFrame(rows, columns=["scale", *columns.LOSSES])
    scales_differ = table.groupby("variant").scale.transform("nunique") > 1
    table = table.assign(variant=table.variant.where(~scales_differ, table.scale)).drop(columns="scale")
    return table.drop(columns=[name for name in MEASURED if table[name].isna().all()])


def _rows(run: RunDirectory, step: int) -> Iterator[dict[str, Any]]:
    """A row per arm, without its share; with two more columns: scale (alpha and scaling) and settings."""
    losses = run.validation(step)
    evaluation = run.evaluation()
    validated = evaluation[(evaluation.split == VALIDATION) & (evaluation.step <= step)]
    of_examples = dict(iter(validated.groupby("arm")))
    for name, arm in run.arms.items():
        if name not in losses.index:
            continue
        end_se, gain_se = _errors(of_examples[name]) if name in of_examples else (np.nan, np.nan)
        yield {
            "settings": settings_of(arm),
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
            "gain": losses.start[name] - losses.end[name],
            "gain_se": gain_se,
        } | {metric: losses.loc[name, metric] for metric in MEASURED}


def _errors(evaluation: pd.DataFrame) -> tuple[float, float]:
    """Standard errors of an arm's loss at the last step of its evaluation, and of what it gained since the first.

    They are over the choice of groups of examples.

    NaN where no example that both steps have counts a label, or where a loss cannot be squared.
    """
    by_step = evaluation.drop_duplicates(["step", "example"]).set_index("example").groupby("step")
    start, end = by_step.get_group(evaluation.step.min()), by_step.get_group(evaluation.step.max())
    both = end.assign(start=start.loss).dropna(subset=["start", "loss"])
    if not both.labels.sum() or not (both[["start", "loss"]].abs() < _LARGEST).all(axis=None):
        return np.nan, np.nan
    labels, groups = both.labels.to_numpy(), both.group.to_numpy()
    end_se, gain_se = (ratio(totals.to_numpy(), labels, groups)[1] for totals in (both.loss, both.start - both.loss))
    return end_se, gain_se
