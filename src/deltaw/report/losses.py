"""Validation losses of the arms of the compared runs, and how much of the gain a control reaches."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from deltaw.run import ArmRecord, RunDirectory
from deltaw.study import Pair


@dataclass(frozen=True)
class Losses:
    """Validation loss of one arm, in nats a token."""

    arm: str
    control: str | None
    start: float
    end: float  # the last one up to the step that is compared; NaN after a divergence
    share: float | None  # of a control: its gain over that of the arm which learned the task; None without a gain


def losses_of(pair: Pair) -> list[Losses]:
    """Of every arm of the compared runs, as far as they were recorded; under the run's name where two are alike."""
    steps = {source.run: source.step for source in (pair.left, pair.right)}
    found = [
        (Path(run).name, losses)
        for run, step in steps.items()
        if run is not None and step is not None
        for losses in _losses_in(RunDirectory(Path(run)), step)
    ]
    times = Counter(losses.arm for _, losses in found)
    return [losses if times[losses.arm] == 1 else replace(losses, arm=f"{run}/{losses.arm}") for run, losses in found]


def _losses_in(run: RunDirectory, step: int) -> list[Losses]:
    losses = run.validation_losses(step)
    arms = {name: arm for name, arm in run.arms.items() if name in losses.index}
    gains = losses.start - losses.end
    of_task = {_controlled(arm): gains[name] for name, arm in arms.items() if arm["control"] is None}
    return [
        Losses(
            name,
            arm["control"],
            losses.start[name],
            losses.end[name],
            _share(arm, gains[name], of_task.get(_controlled(arm))),
        )
        for name, arm in arms.items()
    ]


def _controlled(arm: ArmRecord) -> tuple[int, int, float]:
    """What a control has in common with the arm that it controls for."""
    return arm["rank"], arm["seed"], arm["lr"]


def _share(arm: ArmRecord, gain: float, gain_of_task: float | None) -> float | None:
    if arm["control"] is None or gain_of_task is None or not gain_of_task > 0:
        return None
    return gain / gain_of_task
