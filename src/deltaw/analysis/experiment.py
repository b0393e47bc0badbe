"""Several runs as one experiment: jobs that differ in the arms that they train, and in nothing else."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import NamedTuple

from deltaw.config.keys import keys_of
from deltaw.config.schema import TrainConfig
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RUN_CONFIG, RunDirectory, load_config
from deltaw.run.identity import FREE_TO_CHANGE, differences
from deltaw.run.record import ArmRecord, settings_of

# What may differ between the runs: the record of each arm holds its learning rate and all other settings of `arms`.
_OF_ARMS = [name for name, _ in keys_of(TrainConfig) if name.startswith("arms.") and name != "arms.projections"]
_FREE = (*FREE_TO_CHANGE, "run", "optim.lr", "model.lr", *_OF_ARMS)


class Member(NamedTuple):
    """An arm of an experiment, and the run that trained it."""

    run: RunDirectory
    arm: ArmRecord


def experiment(paths: Iterable[Path]) -> list[RunDirectory]:
    """Open runs whose arms are compared as if one run had trained them all.

    Raises:
        UserError: two of them differ in more than their arms, or have an arm with the same settings and seed.
    """
    runs = [RunDirectory(path) for path in paths]
    if reason := why_apart(runs):
        raise UserError(reason)
    return runs


def why_apart(runs: Sequence[RunDirectory]) -> str | None:
    """Why runs are not one experiment, in words; None if they are."""
    for run in runs[1:]:
        if different := _different(runs[0], run):
            one, other = runs[0].path, run.path
            each = "; ".join(f"{key} is {a} in {one} and {b} in {other}" for key, (a, b) in different.items())
            return f"{one} and {other} are not one experiment ({each}): give runs that differ in their arms alone"
    first: dict[tuple[object, ...], Member] = {}
    for member in (Member(run, arm) for run in runs for arm in run.record.arms):
        run, arm = member
        same = first.setdefault((arm["control"], arm.get("shadow", 0), *settings_of(arm)), member)
        if same.run is not run:
            return (
                f"{same.arm['name']} of {same.run.path} and {arm['name']} of {run.path} have the same settings and "
                "seed, and would count twice: leave one of the runs out, or train it with another seed"
            )
    return None


def _different(one: RunDirectory, other: RunDirectory) -> dict[str, tuple[object, object]]:
    """What sets two runs apart besides their arms, with the value of each run."""
    told = {
        "the base's hash": [run.record.base["sha256"][:12] for run in (one, other)],
        "the data's fingerprint": [run.record.data.get("fingerprint", "unknown")[:12] for run in (one, other)],
        "task": [run.record.task for run in (one, other)],
    }
    found: dict[str, tuple[object, object]] = {key: (a, b) for key, (a, b) in told.items() if a != b}
    try:
        configs = [load_config(run.path / RUN_CONFIG) for run in (one, other)]
    except (OSError, ValueError):  # the record alone tells
        return found
    return found | differences(configs[0], configs[1], _FREE)


def arms_of(runs: Sequence[RunDirectory]) -> dict[str, Member]:
    """All arms by name, in order. An arm is called run/arm where several runs have its name."""
    arms = Counter(arm["name"] for run in runs for arm in run.record.arms)
    folders = Counter(run.path.name for run in runs)
    members = {}
    for run in runs:
        folder = run.path.name if folders[run.path.name] == 1 else str(run.path)
        for arm in run.record.arms:
            name = arm["name"]
            members[name if arms[name] == 1 else f"{folder}/{name}"] = Member(run, arm)
    return members


def name_among(runs: Sequence[RunDirectory], run: Path, arm: str) -> str:
    """The name that `arms_of` gives an arm of one of the runs."""
    return next(name for name, one in arms_of(runs).items() if (one.run.path, one.arm["name"]) == (run, arm))


def adapter_of(runs: Sequence[RunDirectory], name: str, step: int | None = None) -> Adapter:
    """The factors of an arm of an experiment, by its name in `arms_of`; otherwise as `RunDirectory.adapter`."""
    run, arm = arms_of(runs)[name]
    return _in_experiment(run.adapter(arm["name"], step), runs)


def joined(left: Adapter, right: Adapter) -> tuple[Adapter, Adapter]:
    """Two adapters as arms of one experiment, if the runs that they come from are one; else as they are."""
    one, other = left.origin, right.origin
    if one is None or other is None or one.runs == other.runs:
        return left, right
    runs = [RunDirectory(path) for path in dict.fromkeys((*one.runs, *other.runs))]
    return (left, right) if why_apart(runs) else (_in_experiment(left, runs), _in_experiment(right, runs))


def _in_experiment(adapter: Adapter, runs: Sequence[RunDirectory]) -> Adapter:
    origin = adapter.origin
    if origin is None or len(runs) == 1:
        return adapter
    name = name_among(runs, origin.run, origin.arm)
    return replace(adapter, name=name, origin=replace(origin, experiment=tuple(run.path for run in runs)))


def best_lr(runs: Sequence[RunDirectory], arm: ArmRecord) -> float | None:
    """The learning rate with the lowest final validation loss among arms that differ from `arm` in it alone.

    None if there is only one such arm, or if every loss diverged.
    """
    tried: dict[float, float] = {}
    for run in runs:
        losses = run.validation().end
        for name, one in run.arms.items():
            if one["control"] is None and settings_of(one, lr=0) == settings_of(arm, lr=0):
                tried[one["lr"]] = losses.get(name, nan)
    finite = {lr: loss for lr, loss in tried.items() if isfinite(loss)}
    return min(finite, key=finite.__getitem__) if len(tried) > 1 and finite else None
