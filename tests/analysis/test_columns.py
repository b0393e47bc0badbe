"""Every table has the columns that `columns` explains, in this order."""

from pathlib import Path

import pytest
import torch

from deltaw.analysis import columns
from deltaw.analysis.against_base import against_base
from deltaw.analysis.compare import Comparison, Pairing, compare_all
from deltaw.analysis.losses import losses_of
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import MEASURED
from tests.support.folders import WIDTH, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory(write_run(tmp_path_factory.mktemp("runs") / "run", "r2-s0", "r5-s0"))


@pytest.fixture(scope="module", params=[True, False], ids=["cells", "no cells"])
def comparison(run: RunDirectory, request: pytest.FixtureRequest) -> Comparison:
    return compare_all([Pairing(run.adapter("r2-s0"), run.adapter("r5-s0"), cells=request.param)], ["all"])


def test_tables_of_a_comparison(comparison: Comparison) -> None:
    assert list(comparison.phi.columns) == list(columns.PHI)
    assert list(comparison.pairs.columns) == list(columns.PAIRS)
    assert list(comparison.sites.columns) == list(columns.SITES)


def test_tables_against_the_base(run: RunDirectory) -> None:
    arm = run.adapter("r2-s0")
    phi, amplification = against_base(next(iter(arm.sites)), torch.eye(WIDTH), [arm])
    assert list(phi.columns) == list(columns.PHI)
    assert list(amplification.columns) == list(columns.AMPLIFICATION)


def test_losses_have_no_metric_that_no_run_recorded(run: RunDirectory) -> None:
    assert list(losses_of([run.adapter("r2-s0")]).columns) == [name for name in columns.LOSSES if name not in MEASURED]


def test_losses_of_a_run_that_measured_accuracy(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0"))
    with (run.path / "metrics.csv").open("a") as file:
        file.write("10,r2-s0,val/accuracy,0.5\n")
    losses = losses_of([run.adapter("r2-s0")])
    assert list(losses.columns) == [name for name in columns.LOSSES if name == "accuracy" or name not in MEASURED]
