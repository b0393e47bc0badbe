"""Runs with judged losses and empty snapshots, made from losses that a test gives."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import OmegaConf

from deltaw.run.directory import RunDirectory
from tests.support.folders import arm_record

Losses = NDArray[np.float64]
STEP = 10


@dataclass
class Measured:
    """An arm: its summed losses of each judged example, and its mean loss at the last validation."""

    uncut: Losses
    validation: float = 1.0
    cuts: Mapping[int, Losses] = field(default_factory=dict)
    dropped: Mapping[str, Losses] = field(default_factory=dict)


@dataclass
class Examples:
    """Judged examples, the losses of the base, and a way to make those of arms.

    Losses of an arm are those of the base minus `gain` per label; each example differs from that by `noise`.
    """

    count: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)
        self.labels = self.draw.integers(2, 12, self.count)
        self.base: Losses = self.labels * self.draw.gamma(8, 0.5, self.count)

    def arm(self, gain: float, noise: float = 0.3, of: Losses | None = None, exact: bool = False) -> Losses:
        """Losses below the base's, or those of another arm, by `gain` per label; `exact`: in these examples."""
        draws = self.draw.standard_normal(self.count)
        draws -= np.average(draws, weights=self.labels) if exact else 0
        return (self.base if of is None else of) - self.labels * (gain + noise * draws)


def write_judged(
    path: Path,
    examples: Examples,
    arms: Mapping[str, Measured],
    groups: NDArray[np.int64] | None = None,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table,
    config: Mapping[str, object] | None = None,
    base: str = "a" * 64,
) -> RunDirectory:
    """A run of 10 steps with these arms; `change` has the last word on its evaluation."""
    path.mkdir(parents=True)
    records = [arm_record(name) for name in arms]
    data = {"fingerprint": "f" * 64, "learnt": 2000, "validation": 2, "judged": examples.count}
    (path / "run.json").write_text(
        json.dumps({"base": {"name": "tiny", "sha256": base}, "arms": records, "data": data})
    )
    plain = {"trainer": {"max_steps": STEP}, "data": {"batch": 16, "judged": examples.count}}
    OmegaConf.save(OmegaConf.create(dict(config or plain)), path / "config.yaml")
    for name in arms:
        (path / "snapshots" / name / f"step-{STEP:08d}").mkdir(parents=True)
    rows = [
        f"{step},{name},val/loss,{4.0 if step == 0 else one.validation}"
        for name, one in arms.items()
        for step in (0, STEP)
    ]
    (path / "metrics.csv").write_text("\n".join(["step,arm,name,value", *rows]) + "\n")
    tables = []
    for name, one in arms.items():
        losses: dict[tuple[int, int | None, str], Losses] = {(0, None, ""): examples.base, (STEP, None, ""): one.uncut}
        losses |= {(STEP, cut, ""): values for cut, values in one.cuts.items()}
        losses |= {(STEP, None, what): values for what, values in one.dropped.items()}
        for (step, cut, dropped), values in losses.items():
            tables.append(_rows(examples, groups, values).assign(arm=name, step=step, cut=cut, dropped=dropped))
    table = pd.concat(tables).assign(split="judged", right=0).astype({"cut": "Int64"})
    change(table).to_parquet(path / "evaluation.parquet")
    return RunDirectory(path)


def _rows(examples: Examples, groups: NDArray[np.int64] | None, losses: Losses) -> pd.DataFrame:
    numbers = np.arange(examples.count)
    return pd.DataFrame(
        {
            "example": numbers,
            "group": numbers if groups is None else groups,
            "loss": losses,
            "labels": examples.labels,
        }
    )
