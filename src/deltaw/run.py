"""The run directory: the only thing that training and analysis share. Alone in knowing its file names."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, nan
from pathlib import Path
from typing import NotRequired, TypedDict

import pandas as pd
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deltaw.adapter import CONFIG, Adapter, Origin, load_adapter
from deltaw.cli import UserError
from deltaw.metric import MEASURED

RECORD = "run.json"
RUN_CONFIG = "config.yaml"
CHECKPOINT = "checkpoints/last.ckpt"
LOCK = "lock"
METRICS = "metrics.csv"
INPUTS = "inputs.safetensors"
SNAPSHOTS = "snapshots"
ANALYSIS = "analysis"

# In an analysis, besides the pictures of its exhibits.
PHI = "phi.parquet"
PAIRS = "pairs.parquet"
SITES = "sites.parquet"
LOSSES = "losses.parquet"
AMPLIFICATION = "amplification.parquet"
TABLES = "tables.json"
SUMMARY_WORDS = "summary.md"
SUMMARY_NUMBERS = "summary.json"


class BaseRecord(TypedDict):
    """The frozen base of a run, as `run.json` tells it."""

    name: str
    sha256: str


class ArmRecord(TypedDict):
    """One arm of a run, as `run.json` tells it."""

    name: str
    rank: int
    seed: int
    lr: float
    control: str | None
    alpha: float
    scaling: str
    variant: NotRequired[str]  # another alpha or scaling than the run's, and patterns; no key means none


class WeightRecord(TypedDict):
    """Where the frozen weight of a site lies, as `run.json` tells it."""

    file: str
    tensor: str
    rows: list[list[int]]  # first and behind the last of each range
    transposed: bool


class Record(TypedDict):
    """What analysis reads of `run.json`."""

    base: BaseRecord
    task: str
    arms: list[ArmRecord]
    weights: dict[str, WeightRecord]  # by module


def settings_of(arm: ArmRecord, **other: object) -> tuple[object, ...]:
    """What arms have in common that differ in the control alone, with some of it taken to be another, as seed=0."""
    return tuple(({"variant": ""} | arm | other)[key] for key in ("rank", "seed", "lr", "variant"))


@dataclass(frozen=True)
class RunDirectory:
    """One run: its record, its metrics, and the snapshots of its arms."""

    path: Path

    @classmethod
    def newest(cls, runs: Path) -> "RunDirectory | None":
        """The run under `runs` with the newest record; None where there is none."""
        records = sorted(runs.glob(f"*/{RECORD}"), key=lambda record: record.stat().st_mtime)
        return cls(records[-1].parent) if records else None

    @cached_property
    def record(self) -> Record:
        path = self.path / RECORD
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} is missing: give a run directory that train.py wrote") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): train the run again") from None
        if not isinstance(record, dict) or not {"base", "arms"} <= record.keys():
            raise UserError(f"{path} does not tell the run's base and arms: train the run again")
        return record  # type: ignore[return-value]

    @property
    def arms(self) -> dict[str, ArmRecord]:
        """The arms by name, in the order in which they were asked for."""
        return {arm["name"]: arm for arm in self.record["arms"]}

    def metrics(self) -> pd.DataFrame:
        """Columns step, arm, name, value; no rows where nothing was recorded."""
        path = self.path / METRICS
        return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["step", "arm", "name", "value"])

    @property
    def unit(self) -> str:
        """What its losses are a mean over: a token, or a row of a classification."""
        return "row" if self.record.get("task") == "classification" else "token"

    def validation(self, step: int | None = None) -> pd.DataFrame:
        """What validation measured: a row per arm, columns start and end of the loss, and those of `MEASURED`.

        The start is before the first step. All others are after the last step that was validated, up to `step` where
        that is given; NaN is a loss after a divergence, and a metric that the task does not have.
        """
        names = {"val/loss": "end", **{f"val/{name}": name for name in MEASURED}}
        metrics = self.metrics()
        metrics = metrics[metrics.name.isin(names)].sort_values("step", kind="stable")
        recorded = metrics if step is None else metrics[metrics.step <= step]
        first, last = (
            recorded.drop_duplicates(["arm", "name"], keep=end)
            .pivot(index="arm", columns="name", values="value")
            .reindex(columns=list(names))
            for end in ("first", "last")
        )
        return last.rename(columns=names).assign(start=first["val/loss"])

    def best_lr(self, arm: ArmRecord) -> float | None:
        """The learning rate of lowest final validation loss, all else as in `arm`; None unless several were tried."""
        losses = self.validation().end
        tried = {
            one["lr"]: losses.get(name, nan)
            for name, one in self.arms.items()
            if one["control"] is None and settings_of(one, lr=0) == settings_of(arm, lr=0)
        }
        finite = {lr: loss for lr, loss in tried.items() if isfinite(loss)}
        return min(finite, key=finite.__getitem__) if len(tried) > 1 and finite else None

    def steps(self, arm: str) -> list[int]:
        """The steps after which `arm` has a snapshot, in ascending order."""
        names = (path.name for path in (self.path / SNAPSHOTS / arm).glob("step-*"))
        return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{8,}", name))

    def snapshot(self, arm: str, step: int) -> Path:
        """The folder of one snapshot, in PEFT's format, whether or not it has been written."""
        return self.path / SNAPSHOTS / arm / f"step-{step:08d}"

    def adapter(self, arm: str, step: int | None = None) -> Adapter:
        """The factors of `arm` after `step`; after the last one that has a snapshot where `step` is None.

        Raises:
            UserError: there is no such snapshot, or it cannot be read.
        """
        steps = self.steps(arm)
        if not steps:
            raise UserError(f"{self.path} has no snapshot of {arm} yet: wait for the run, or train it again")
        if step not in (None, *steps):
            raise UserError(f"{self.path} has snapshots of {arm} after the steps {steps}: step={step} is not there")
        step = steps[-1] if step is None else step
        start = self.snapshot(arm, 0) if steps[0] == 0 else None
        origin = Origin(self.path, arm, step, self.record["base"]["sha256"])
        return replace(load_adapter(self.snapshot(arm, step), start), name=arm, origin=origin)

    def inputs(self, module: str) -> Float[Tensor, "tokens d_in"] | None:
        """Token inputs of an adapted module; None where the run has not kept them, or not of this one.

        Raises:
            UserError: they are kept, and cannot be read.
        """
        path = self.path / INPUTS
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(module) if module in file.keys() else None  # noqa: SIM118 (it is no dict)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it to go on without") from None


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


@contextmanager
def rewritten(folder: Path) -> Iterator[Path]:
    """A folder to fill, which replaces `folder` at once when the block ends; an error leaves the old one.

    Raises:
        UserError: `folder` holds something else than an analysis, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file: give a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / TABLES).is_file():
        raise UserError(f"output={folder} has files and no {TABLES}, so it is no analysis to replace: give another")
    new, old = (folder.with_name(f".{folder.name}.{state}-{os.getpid()}") for state in ("new", "old"))
    try:
        new.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"output={folder} cannot be written ({error.strerror}): give another") from None
    try:
        yield new
    except BaseException:
        shutil.rmtree(new)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
