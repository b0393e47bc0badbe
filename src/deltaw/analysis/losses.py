"""Validation losses and metrics of the arms of runs, and how much of the gain a control reaches."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory, settings_of
from deltaw.run.metrics import MEASURED

COLUMNS = ["arm", "control", "rank", "seed", "lr", "variant", "unit", "start", "end", "share", *MEASURED]


def losses_of(adapters: Sequence[Adapter]) -> pd.DataFrame:
    """Of every arm of the adapters' runs, as far as they were recorded; under the run's name where two are alike.

    Returns:
        A row per arm: arm, control (None for the task's own), rank, seed, lr, variant (another alpha or scaling than
        its run's, and patterns, as in its name; both alpha and scaling, where runs differ in them; "" for none), unit
        (token or row), start and end (nats a unit, before the first step and at the last validation up to the adapter's
        step; NaN after a divergence), share (of a control: its gain over that of the arm which learned the task and is
        the same in all else; else NaN), and those of `MEASURED` that were recorded, at the end.
    """
    steps = {adapter.origin.run: adapter.origin.step for adapter in adapters if adapter.origin}
    rows = [(run.name, *row) for run, step in steps.items() for row in _rows(RunDirectory(run), step)]
    table = pd.DataFrame(rows, columns=["run", "scale", *COLUMNS])
    several = table.groupby("variant").scale.transform("nunique") > 1  # runs whose own alpha or scaling differ
    table = table.assign(variant=table.variant.where(~several, table.scale))
    table = table.drop(columns=[name for name in MEASURED if table[name].isna().all()])
    twice = table.arm.duplicated(keep=False)
    return table.assign(arm=table.arm.where(~twice, table.run + "/" + table.arm)).drop(columns=["run", "scale"])


def _rows(run: RunDirectory, step: int) -> Iterator[tuple[object, ...]]:
    losses = run.validation(step)
    gains = losses.start - losses.end
    arms = {name: arm for name, arm in run.arms.items() if name in losses.index}
    of_task = {settings_of(arm): gains[name] for name, arm in arms.items() if arm["control"] is None}
    for name, arm in arms.items():
        gain = of_task.get(settings_of(arm), np.nan)
        share = gains[name] / gain if arm["control"] and gain > 0 else np.nan
        scale = f"a{arm['alpha']:g}-{arm['scaling']}"
        settings = (arm["control"], *settings_of(arm))
        yield (
            scale,
            name,
            *settings,
            run.unit,
            losses.start[name],
            losses.end[name],
            share,
            *losses.loc[name, list(MEASURED)],
        )
