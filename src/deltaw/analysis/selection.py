"""Which two adapters are meant: by the names that the user gives, or by default."""

import re
from collections.abc import Callable
from pathlib import Path

from deltaw.errors import UserError
from deltaw.run.adapter import CONFIG, Adapter, load_adapter
from deltaw.run.directory import RECORD, RunDirectory, settings_of


def find_adapter(name: str, run: RunDirectory | None, step: int | None, start: str | None = None) -> Adapter:
    """The adapter called `name`: an arm of `run`, a run directory with one arm, or a folder in PEFT's format.

    Args:
        name: an arm's name or a path; behind the first two `@100` names a step.
        run: the run whose arms may be meant.
        step: which snapshot of an arm where the name has none, None for the last; a folder is one adapter.
        start: for a folder, that of the same adapter before its first step.

    Raises:
        UserError: `name` is none of these, or several.
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
    if len(run.arms) != 1:
        raise UserError(f"{run.path} has the arms {list(run.arms)}: give run={run.path} and one of them by name")
    return run.adapter(next(iter(run.arms)), step)


def default_pair(run: RunDirectory | None, left: str | None, right: str | None) -> tuple[str, str]:
    """The names given; for None the arm of `run` with the smallest rank as left, with the largest as right.

    Of several with that rank, the first seed's, at its best learning rate. Controls are not taken by default, nor is
    one arm taken twice.

    Raises:
        UserError: a name is to be found, and there is no run, or the run has no such arm.
    """
    if left and right:
        return left, right
    if run is None:
        raise UserError("there is no run under runs/: train one with train.py, or give left= and right=")
    left = left or _arm_by_rank(run, min, other_than=right)
    return left, right or _arm_by_rank(run, max, other_than=left)


def _arm_by_rank(run: RunDirectory, extreme: Callable[..., int], other_than: str | None) -> str:
    arms = [
        arm
        for arm in run.record["arms"]
        if arm["control"] is None and arm["name"] != (other_than or "").partition("@")[0]
    ]
    if not arms:
        raise UserError(f"{run.path} has the arms {list(run.arms)}, not two to compare: give left= and right=")
    rank = extreme(arm["rank"] for arm in arms)
    arms = [arm for arm in arms if arm["rank"] == rank]
    best = settings_of(arms[0], lr=run.best_lr(arms[0]))
    return next((arm for arm in arms if settings_of(arm) == best), arms[0])["name"]
