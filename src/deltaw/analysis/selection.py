"""Choose the two adapters: by the names that the user gives, or by default."""

import re
from collections.abc import Callable
from pathlib import Path

from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, load_adapter
from deltaw.run.directory import RECORD, RunDirectory
from deltaw.run.peft_files import CONFIG
from deltaw.run.record import SHADOW, settings_of


def find_adapter(name: str, run: RunDirectory | None, step: int | None, start: str | None = None) -> Adapter:
    """The adapter called `name`: an arm of `run`, a run directory with one arm, or a folder in PEFT's format.

    Args:
        name: the arm's name, or the path; `@100` after an arm or a run directory names a step.
        run: the run that has the arm.
        step: the step where the name has none; None for the last snapshot, and for a folder.
        start: folder of the same adapter before its first step; only for an adapter folder.

    Raises:
        UserError: nothing or more than one thing is called `name`, or `step` or `start` does not apply.
    """
    path = Path(name)
    if not path.exists() and (stepped := re.fullmatch(r"(.+)@(\d+)", name)):
        path, name, step = Path(stepped[1]), stepped[1], int(stepped[2])
    if step is not None and (path / CONFIG).is_file():
        raise UserError(f"step={step}: {name} is one adapter and has no steps: leave step out, or give the run and arm")
    meanings = {
        "an arm": run is not None and name in run.arms,
        "a run directory": (path / RECORD).is_file(),
        "an adapter folder": (path / CONFIG).is_file(),
    }
    if start and not meanings["an adapter folder"]:
        raise UserError(f"the start {start} is given for {name}, and only an adapter folder needs one: leave it out")
    match [meaning for meaning, holds in meanings.items() if holds]:
        case ["an arm"] if run is not None:
            return run.adapter(name, step)
        case ["a run directory"]:
            return _only_arm(RunDirectory(path), step)
        case ["an adapter folder"]:
            return load_adapter(path, start)
        case []:
            arms = f"an arm of {run.path} (it has {list(run.arms)})" if run else "an arm, since no run is given"
            raise UserError(f"{name} is not {arms}, nor a run directory, nor a folder with {CONFIG}: give one of them")
        case several:
            raise UserError(f"{name} is {' and '.join(several)}: give the folder as {path.resolve()}, or rename it")


def _only_arm(run: RunDirectory, step: int | None) -> Adapter:
    arms = [arm["name"] for arm in run.record.arms if arm["control"] != SHADOW]
    if len(arms) != 1:
        raise UserError(f"{run.path} has the arms {arms}: give run={run.path} and one of them by name")
    return run.adapter(arms[0], step)


def default_pair(run: RunDirectory | None, left: str | None, right: str | None) -> tuple[str, str]:
    """The names given; by default left has the smallest rank in `run`, and right the largest.

    Of several arms with that rank, the default is the first seed at its best learning rate. A default is never a
    control, and never the other side.

    Raises:
        UserError: a name is missing and there is no run, or the run has no such arm.
    """
    if left and right:
        return left, right
    if run is None:
        raise UserError("there is no run under runs/: train one with deltaw train, or give both left= and right=")
    left = left or _arm_by_rank(run, min, other_than=right)
    return left, right or _arm_by_rank(run, max, other_than=left)


def _arm_by_rank(run: RunDirectory, extreme: Callable[..., int], other_than: str | None) -> str:
    arms = [
        arm for arm in run.record.arms if arm["control"] is None and arm["name"] != (other_than or "").partition("@")[0]
    ]
    if not arms:
        raise UserError(
            f"{run.path} has the arms {list(run.arms)}, not two to compare: give left= and right=, each an arm, a run "
            "directory with one arm, or an adapter folder"
        )
    rank = extreme(arm["rank"] for arm in arms)
    arms = [arm for arm in arms if arm["rank"] == rank]
    best = settings_of(arms[0], lr=run.best_lr(arms[0]))
    return next((arm for arm in arms if settings_of(arm) == best), arms[0])["name"]
