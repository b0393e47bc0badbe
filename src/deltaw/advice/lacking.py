"""Why runs give no answer, each as a sentence with the way on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from deltaw.advice.judged import UNCUT, Judged
from deltaw.analysis.experiment import why_apart
from deltaw.run.directory import RUN_CONFIG, RunDirectory, load_config
from deltaw.run.record import SHADOW

AGAIN = "start the same command again: it judges without training"
_ENOUGH = 512  # judged examples that the bundled text sets aside


def lacking_in(runs: Sequence[RunDirectory], rows: Sequence[pd.DataFrame]) -> str | None:
    """Why the runs give no answer; None where `deltaw.advice.judged.judged_of` can read them.

    Args:
        runs: several are used together.
        rows: of each, from `deltaw.advice.judged.judged_rows`.
    """
    if not runs:
        return (
            "Adapter folders tell no losses, so they cannot tell which rank: give run=, a directory that deltaw train "
            "wrote."
        )
    for run, table in zip(runs, rows, strict=True):
        if reason := _not_judged(run, table):
            return f"{run.path.name} {reason}."
    return _apart(runs, rows)


def undecidable(judged: Judged) -> str | None:
    """Why no arm can be judged by these losses; None if one can."""
    if not judged.arms:
        return f"No arm has judged losses both before its first step and after its last: {AGAIN}."
    if not any(np.isfinite(arm.base).all() for arm in judged.arms):
        return (
            "The base's own losses on the judged examples are not finite, so no gain is known: train with "
            "model.dtype=float32."
        )
    if all(arm.diverged for arm in judged.task):
        return "Every arm of the task diverged, so there is nothing to judge: train with lower arms.lrs."
    if judged.clusters < 2:
        what = "example" if len(judged.labels) == 1 else f"group (data.group) of {len(judged.labels)} examples"
        return (
            f"One judged {what} tells no error, so nothing can be decided: train with more, as data.judged={_ENOUGH}."
        )
    return None


def _not_judged(run: RunDirectory, rows: pd.DataFrame) -> str | None:
    """The end of a sentence about a run."""
    evaluated = run.evaluation()
    if not rows.empty:
        if not (rows.step == 0).any() or not (rows.step > 0).any():
            which = "last" if (rows.step == 0).any() else "first"
            return f"has judged losses, but none of its {which} step: {AGAIN}"
        uncut = rows[(rows.step > 0) & (rows.cut == UNCUT) & (rows.dropped == "")]
        if uncut.empty:
            return f"has judged losses of cuts alone: {AGAIN}"
        if not any(name in run.validation().end.index for name in run.arms):
            return "has no validation losses, which the best arm is chosen by: train it again under another run.name"
        return None
    if len(evaluated) and not (evaluated.labels > 0).any():
        return "was evaluated on examples without a label: give data with completions"
    if run.record.data.get("judged") == 0 and not _sets_none_aside(run):
        return (
            "has no example left to judge by, because its data are few: train again under another run.name, with more "
            "data or with data.judged"
        )
    if _sets_none_aside(run):
        return (
            "was trained with data.judged=0, so no example is left to judge by: train again under another run.name "
            f"with data.judged={_ENOUGH}"
        )
    if "judged" not in run.record.data:
        return (
            "has no judged losses: the version that trained it set no example aside to judge by. Train again under "
            "another run.name"
        )
    steps = min((run.steps(name)[-1] if run.steps(name) else 0 for name in _trained(run)), default=0)
    if run.max_steps and steps < run.max_steps:
        return f"stopped after step {steps} of {run.max_steps}: start the same command again, and it goes on from there"
    return f"has no judged losses (it was interrupted before them, or they were deleted): {AGAIN}"


def _trained(run: RunDirectory) -> list[str]:
    return [name for name, arm in run.arms.items() if arm["control"] != SHADOW]


def _apart(runs: Sequence[RunDirectory], rows: Sequence[pd.DataFrame]) -> str | None:
    """Why several runs cannot be used together, as a sentence; None if they can."""
    if reason := why_apart(runs):
        return f"{reason}."
    for run, table in zip(runs[1:], rows[1:], strict=True):
        if _examples(table) != _examples(rows[0]):
            return (
                f"{runs[0].path.name} and {run.path.name} were judged on different examples, so their losses cannot be "
                "pooled: give one of them, or train with the same data.judged."
            )
    return None


def _examples(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """The judged examples with their numbers of labels."""
    found = rows.drop_duplicates("example").sort_values("example")
    return list(zip(found.example.tolist(), found.labels.tolist(), strict=True))


def _sets_none_aside(run: RunDirectory) -> bool:
    try:
        return OmegaConf.select(load_config(run.path / RUN_CONFIG), "data.judged") == 0
    except (OSError, ValueError):
        return False
