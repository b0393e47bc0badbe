"""Runs compared, and acted upon in the middle."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from deltaw.run.directory import RunDirectory
from deltaw.training.task import LoraArms
from tests.support.tiny import factors, largest_difference, metrics


def at_step(step: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `act` called in the middle of training, before the end of `step`."""
    original = LoraArms.training_step

    def training_step(self: LoraArms, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == step - 1:
            act()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LoraArms, "training_step", training_step)


def assert_same_run(left: Path, right: Path) -> None:
    for arm in (path.name for path in (right / "snapshots").iterdir()):
        for step in (0, 5, 10, 15, 20):
            assert largest_difference(factors(left, arm, step), factors(right, arm, step)) == 0
    assert metrics(left) == metrics(right)
    pd.testing.assert_frame_equal(RunDirectory(left).evaluation(), RunDirectory(right).evaluation(), check_exact=True)


def assert_equal_metrics(left: Path, right: Path) -> None:
    """The same rows of metrics and evaluation, values to rounding."""
    rows = [[line.rpartition(",") for line in metrics(run)[1:]] for run in (left, right)]
    assert [key for key, _, _ in rows[0]] == [key for key, _, _ in rows[1]]
    assert [float(value) for _, _, value in rows[0]] == pytest.approx(
        [float(value) for _, _, value in rows[1]], abs=1e-9
    )
    pd.testing.assert_frame_equal(RunDirectory(left).evaluation(), RunDirectory(right).evaluation(), rtol=0, atol=1e-9)
