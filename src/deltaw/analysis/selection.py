"""Choose the two adapters: by the names that the user gives, or by default."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from deltaw.analysis.experiment import adapter_of, arms_of, best_lr
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, load_adapter
from deltaw.run.adapter_folder import way_on
from deltaw.run.directory import RECORD, RunDirectory
from deltaw.run.peft_files import CONFIG
from deltaw.run.record import SHADOW, settings_of

LOWEST_RANK = 4  # of the default left arm: fewer directions make a small figure


def find_adapter(
    name: str, runs: Sequence[RunDirectory], step: int | None, start: str | None = None, base: str | None = None
) -> Adapter:
    """The adapter called `name`: an arm of `runs`, a run directory with one arm, or a folder in PEFT's format.

    Args:
        name: the arm's name, or run/arm where several runs have this arm, or the path; `@100` after an arm or a run
            directory names a step.
        runs: one experiment; empty for none.
        step: the step where the name has none; None for the last snapshot, and for a folder.
        start: folder of the same adapter before its first step; only for an adapter folder.
        base: folder with the base's config, which tells the rows of an adapter folder's fused layers.

    Raises:
        UserError: nothing or more than one thing is called `name`, or `step` or `start` does not apply, or the run
            has learned nothing yet and no step is given.
    """
    path, stepped = _path_and_step(name)
    if stepped is not None:
        name, step = str(path), stepped
    if step is not None and (path / CONFIG).is_file():
        raise UserError(f"step={step}: {name} is one adapter and has no steps: leave step out, or give the run and arm")
    arms = arms_called(name, runs)
    meanings = {
        "an arm": bool(arms),
        "a run directory": (path / RECORD).is_file(),
        "an adapter folder": (path / CONFIG).is_file(),
    }
    if start and not meanings["an adapter folder"]:
        raise UserError(f"the start {start} is given for {name}, and only an adapter folder needs one: leave it out")
    match [meaning for meaning, holds in meanings.items() if holds]:
        case ["an arm"] if len(arms) > 1:
            raise UserError(f"{name} is an arm of {len(arms)} runs: give {' or '.join(arms)}")
        case ["an arm"]:
            return _arm(runs, arms[0], step)
        case ["a run directory"]:
            return _only_arm(RunDirectory(path), step)
        case ["an adapter folder"]:
            return load_adapter(path, start, base)
        case [] if path.exists() or "/" in name:
            raise UserError(way_on(path))
        case []:
            known = (
                f"an arm of {_paths(runs)} (arms: {list(arms_of(runs))})" if runs else "an arm, since no run is given"
            )
            raise UserError(f"{name} is not {known}, nor a run directory, nor a folder with {CONFIG}: give one of them")
        case several:
            raise UserError(f"{name} is {' and '.join(several)}: give the folder as {path.resolve()}, or rename it")


def _only_arm(run: RunDirectory, step: int | None) -> Adapter:
    arms = [arm["name"] for arm in run.record.arms if arm["control"] != SHADOW]
    if len(arms) != 1:
        raise UserError(f"{run.path} has the arms {arms}: give run={run.path} and one of them by name")
    return _arm([run], arms[0], step)


def _arm(runs: Sequence[RunDirectory], name: str, step: int | None) -> Adapter:
    run, arm = arms_of(runs)[name]
    if step is None and run.steps(arm["name"]) == [0]:
        raise UserError(
            f"{run.path} has only the snapshots before the first step, where nothing is learned yet: let the training "
            "go on (the same command continues it), or give step=0 to compare the starts"
        )
    return adapter_of(runs, name, step)


def arms_called(name: str, runs: Sequence[RunDirectory]) -> list[str]:
    """The arms that `name`, as an arm's name or as run/arm, can mean: their names among the arms of all `runs`."""
    folder, _, own = name.rpartition("/")
    return [
        known
        for known, (run, arm) in arms_of(runs).items()
        if arm["name"] == own and folder in ("", run.path.name, str(run.path))
    ]


def is_folder(name: str) -> bool:
    """Whether `name`, without a step behind it, is a folder."""
    return _path_and_step(name)[0].is_dir()


def _path_and_step(name: str) -> tuple[Path, int | None]:
    """The path, and the step behind an @; a path that exists has no step behind it."""
    path = Path(name)
    try:
        exists = path.exists()
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}): give a folder that you may read") from None
    if not exists and (stepped := re.fullmatch(r"(.+)@(\d+)", name)):
        return Path(stepped[1]), int(stepped[2])
    return path, None


def default_pair(runs: Sequence[RunDirectory], left: str | None, right: str | None) -> tuple[str, str]:
    """The names given; by default left has the smallest rank of at least 4 in `runs`, and right the largest rank.

    Left's default has a smaller rank than right, if any arm has. Of several arms with one rank, the default is the
    first seed at its best learning rate. A default is never a control, and never the other side. Runs of one arm have
    that arm on both sides: left's default is then its snapshot in the middle.

    Raises:
        UserError: a name is missing and there is no run, or no such arm.
    """
    if left and right:
        return left, right
    if not runs:
        raise UserError("there is no run under runs/: train one with deltaw train, or give both left= and right=")
    if left:
        return left, _arm_of_rank(runs, max, other_than=left)
    highest = right or _arm_of_rank(runs, max, other_than=None)
    if not right and (middle := _middle_of_only_arm(runs)):
        return middle, highest
    lowest = _arm_of_rank(runs, partial(_lowest, below=_rank(runs, highest)), other_than=right)
    return lowest, right or _arm_of_rank(runs, max, other_than=lowest)


def _middle_of_only_arm(runs: Sequence[RunDirectory]) -> str | None:
    """The only arm of the task at the snapshot in the middle; None if there are more arms, or one snapshot."""
    arms = {name: member for name, member in arms_of(runs).items() if member.arm["control"] is None}
    if len(arms) > 1:
        return None
    ((name, (run, arm)),) = arms.items()
    learnt = [step for step in run.steps(arm["name"]) if step > 0]
    return f"{name}@{learnt[(len(learnt) - 1) // 2]}" if len(learnt) > 1 else None


def _rank(runs: Sequence[RunDirectory], name: str) -> int | None:
    """The rank of an arm; None for a folder."""
    arms = arms_called(name.partition("@")[0], runs)
    return arms_of(runs)[arms[0]].arm["rank"] if arms else None


def _lowest(ranks: list[int], below: int | None) -> int:
    """The smallest rank of at least `LOWEST_RANK`, else the smallest; below `below`, if any rank is."""
    ranks = sorted(ranks)
    lower = [rank for rank in ranks if below is None or rank < below] or ranks
    return next((rank for rank in lower if rank >= LOWEST_RANK), lower[0])


def _arm_of_rank(runs: Sequence[RunDirectory], choose: Callable[[list[int]], int], other_than: str | None) -> str:
    left_out = arms_called((other_than or "").partition("@")[0], runs)
    arms = {name: arm for name, (_, arm) in arms_of(runs).items() if arm["control"] is None and name not in left_out}
    if not arms:
        raise UserError(
            f"{_paths(runs)} has the arms {list(arms_of(runs))}, not two to compare: give left= and right=, each an "
            "arm, a run directory with one arm, or an adapter folder"
        )
    rank = choose([arm["rank"] for arm in arms.values()])
    arms = {name: arm for name, arm in arms.items() if arm["rank"] == rank}
    first = next(iter(arms.values()))
    best = settings_of(first, lr=best_lr(runs, first))
    return next((name for name, arm in arms.items() if settings_of(arm) == best), next(iter(arms)))


def _paths(runs: Sequence[RunDirectory]) -> str:
    return ", ".join(str(run.path) for run in runs)
