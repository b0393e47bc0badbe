"""The run directory, all that training and analysis share. No other module knows its file names."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pyarrow import ArrowException, parquet, schema, type_for_alias  # type: ignore[import-untyped]
from yaml import YAMLError  # type: ignore[import-untyped]

from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Origin, load_adapter
from deltaw.run.metrics import COLUMNS_OF_EVALUATION, COLUMNS_OF_METRICS, MEASURED, VALIDATION
from deltaw.run.record import ArmRecord, RunRecord, settings_of

RECORD = "run.json"
RUN_CONFIG = "config.yaml"
CHECKPOINT = "checkpoints/last.ckpt"
LOCK = "lock"
METRICS = "metrics.csv"
EVALUATION = "evaluation.parquet"
SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class RunDirectory:
    """One run: its record, its metrics, and the snapshots of its arms. Reads only."""

    path: Path

    @classmethod
    def newest(cls, runs: Path) -> "RunDirectory | None":
        """The run under `runs` with the newest record; None if there is none."""
        records = sorted(runs.glob(f"*/{RECORD}"), key=lambda record: record.stat().st_mtime)
        return cls(records[-1].parent) if records else None

    @cached_property
    def record(self) -> RunRecord:
        """What `run.json` tells. Raises as `RunRecord.load` does."""
        return RunRecord.load(self.path / RECORD)

    @property
    def arms(self) -> dict[str, ArmRecord]:
        """The arms by name, in the order of the config."""
        return {arm["name"]: arm for arm in self.record.arms}

    @property
    def max_steps(self) -> int | None:
        """The step at which training was to end; None where no config tells."""
        try:
            steps = OmegaConf.select(load_config(self.path / RUN_CONFIG), "trainer.max_steps")
        except (OSError, ValueError):
            return None
        return steps if isinstance(steps, int) else None

    def metrics(self) -> pd.DataFrame:
        """The columns of `COLUMNS_OF_METRICS`; no rows if nothing was recorded.

        Raises:
            UserError: the file is there and cannot be read.
        """
        path = self.path / METRICS
        try:
            with np.errstate(invalid="raise"):  # a step of 1e300
                return pd.read_csv(path, usecols=list(COLUMNS_OF_METRICS), dtype=COLUMNS_OF_METRICS)
        except FileNotFoundError:
            return _empty(COLUMNS_OF_METRICS)
        except (OSError, ValueError, ArithmeticError) as error:  # pandas' own errors are ValueErrors
            raise UserError(f"{path} cannot be read ({error}): delete it to go on without losses") from None

    def evaluation(self) -> pd.DataFrame:
        """What was measured on each held-out example: the columns of `COLUMNS_OF_EVALUATION`; no rows if not recorded.

        Raises:
            UserError: the file is there and cannot be read.
        """
        path = self.path / EVALUATION
        if not path.is_file():
            return _empty(COLUMNS_OF_EVALUATION)
        try:
            table = parquet.read_table(path)
            kinds = {name: kind for name, kind in COLUMNS_OF_EVALUATION.items() if name in table.column_names}
            columns = table.select(list(kinds))
            columns = columns.cast(schema((name, type_for_alias(kind.lower())) for name, kind in kinds.items()))
            frame = columns.to_pandas(ignore_metadata=True)
            of_older_versions = {"split": VALIDATION, "cut": pd.NA, "dropped": "", "group": frame["example"]}
            frame = frame.assign(**{name: old for name, old in of_older_versions.items() if name not in kinds})
            return frame[list(COLUMNS_OF_EVALUATION)].astype(COLUMNS_OF_EVALUATION)
        except (OSError, ValueError, LookupError, TypeError, ArrowException) as error:
            cause = str(error).partition("\n")[0]
            raise UserError(
                f"{path} cannot be read ({cause}): delete it; the command that trained the run then judges it again, "
                "without standard errors of the validation losses"
            ) from None

    @property
    def unit(self) -> str:
        """What the losses are a mean over: tokens, or rows in a classification."""
        return "row" if self.record.task == "classification" else "token"

    def validation(self, step: int | None = None) -> pd.DataFrame:
        """What validation measured.

        Args:
            step: the last step to consider; None for all.

        Returns:
            A row per arm. Columns: start, the loss before the first step; end, the loss at the last validation; and
            those of `MEASURED`, there too. Losses are in nats per `unit`. NaN stands for a loss after a divergence
            and for a metric that the task does not have.
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

    def recipe(self, rank: int) -> list[ArmRecord]:
        """The arms of the task of one rank, at the learning rate, alpha, scaling and patterns that validate best.

        They are the seeds of one recipe. The mean over the seeds of the loss at the last validation is the lowest,
        without those that diverged; a recipe of which none did goes first. No arms if the run has none of this rank.
        """
        losses = self.validation().end
        recipes: dict[tuple[object, ...], list[ArmRecord]] = {}
        for arm in self.arms.values():
            if arm["control"] is None and arm["rank"] == rank:
                recipes.setdefault(settings_of(arm, seed=0), []).append(arm)
        return min(
            recipes.values(), key=lambda arms: _by_loss([losses.get(arm["name"], inf) for arm in arms]), default=[]
        )

    def steps(self, arm: str) -> list[int]:
        """The steps at which `arm` has a snapshot, in ascending order."""
        names = (path.name for path in (self.path / SNAPSHOTS / arm).glob("step-*"))
        return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{8,}", name))

    def snapshot(self, arm: str, step: int) -> Path:
        """The folder of one snapshot, whether or not it exists."""
        return self.path / SNAPSHOTS / arm / f"step-{step:08d}"

    def adapter(self, arm: str, step: int | None = None) -> Adapter:
        """The factors of `arm` at `step`; at the last step that has a snapshot if `step` is None.

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
        origin = Origin(self.path, arm, step, self.record.base["sha256"])
        return replace(load_adapter(self.snapshot(arm, step), start), name=arm, origin=origin)


def load_config(path: Path) -> DictConfig:
    """The config of a run, all of it resolved.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no such config.
    """
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
    except (RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(str(error)) from None
    if not isinstance(config, DictConfig):
        raise ValueError("it is a list")
    return config


def _by_loss(losses: list[float]) -> tuple[bool, float]:
    """Where a recipe with these losses stands among others: whether any diverged, and the mean of the rest."""
    finite = [loss for loss in losses if isfinite(loss)]
    return len(finite) < len(losses), float(np.mean(finite)) if finite else inf


def _empty(columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns)).astype(columns)
