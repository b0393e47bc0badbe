"""The run directory: the only thing that training and analysis share. Alone in knowing its file names."""

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, nan
from pathlib import Path
from typing import NotRequired, TypedDict

import pandas as pd
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Origin, load_adapter
from deltaw.run.metrics import MEASURED

RECORD = "run.json"
RUN_CONFIG = "config.yaml"
CHECKPOINT = "checkpoints/last.ckpt"
LOCK = "lock"
METRICS = "metrics.csv"
INPUTS = "inputs.safetensors"
SNAPSHOTS = "snapshots"


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
