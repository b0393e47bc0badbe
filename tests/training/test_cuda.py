"""Checks for a device: engines with one process, resuming, precision, dropout, packing, 4 bits, analysis.

On a machine with a GPU they run with the other tests; `pytest -m cuda --device=cpu` runs them without one.
"""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from deltaw import compare
from deltaw.run.directory import RunDirectory
from tests.support.processes import train
from tests.support.runs import at_step
from tests.support.tiny import factors, largest_difference, make_base, make_pairs, metrics, run

pytestmark = pytest.mark.cuda
ARMS = ("r2-s0", "r6-s0")


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> str:
    chosen: str = request.config.getoption("--device")
    return chosen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose widths are multiples of 64, as 4 bits need them on some processors, and pairs to learn."""
    folder = tmp_path_factory.mktemp("device")
    make_base(folder / "base", width=128)
    make_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture(scope="module")
def single(folder: Path, device: str) -> Path:
    """Both arms in company on the device, in float64, never interrupted."""
    return run(folder, f"trainer.accelerator={device}", "run.name=single")


def difference(left: Path, right: Path, step: int = 20) -> float:
    return max(largest_difference(factors(left, arm, step), factors(right, arm, step)) for arm in ARMS)


def losses(path: Path, arm: str) -> list[float]:
    """Validation losses of an arm, in order."""
    return [float(line.split(",")[3]) for line in metrics(path) if f",{arm},val/loss," in line]


def test_the_device_trains_as_the_cpu_does(folder: Path, single: Path) -> None:
    cpu = run(folder, "run.name=cpu")
    assert difference(single, cpu) < 1e-8
    assert largest_difference(factors(single, "r6-s0"), factors(single, "r6-s0", 0)) > 1e-3  # it did train


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_an_engine_with_one_process_trains_the_same_arms(folder: Path, single: Path, device: str, engine: str) -> None:
    """With NCCL on a GPU, and gloo on a CPU."""
    settings = [f"trainer.accelerator={device}", f"engine={engine}", f"run.name={engine}"]
    assert difference(train(folder, *settings, processes=1), single) < 1e-10


def test_an_arm_in_company_equals_the_arm_alone(folder: Path, single: Path, device: str) -> None:
    alone = run(folder, f"trainer.accelerator={device}", "arms.ranks=[6]", "run.name=alone")
    assert largest_difference(factors(alone, "r6-s0"), factors(single, "r6-s0")) < 1e-10


def test_a_stopped_run_resumes_to_rounding(
    folder: Path, single: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"trainer.accelerator={device}", "run.name=stopped"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *settings)
    assert not (folder / "runs/stopped/snapshots/r2-s0/step-00000020").exists()
    assert difference(run(folder, *settings), single) < 1e-10


def test_checkpointing_changes_nothing(folder: Path, single: Path, device: str) -> None:
    thrifty = run(
        folder, f"trainer.accelerator={device}", "model.gradient_checkpointing=true", "run.name=checkpointing"
    )
    assert difference(thrifty, single) < 1e-10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mixed_precision_learns_with_factors_in_float32(folder: Path, single: Path, device: str, dtype: str) -> None:
    settings = ["trainer.precision=bf16-mixed", f"model.dtype={dtype}", f"run.name=mixed-{dtype}"]
    mixed = run(folder, f"trainer.accelerator={device}", *settings)
    assert {tensor.dtype for tensor in factors(mixed, "r6-s0").values()} == {torch.float32}
    for arm in ARMS:
        assert losses(mixed, arm)[-1] == pytest.approx(losses(single, arm)[-1], rel=0.02)
        assert losses(mixed, arm)[-1] < losses(mixed, arm)[0]


def test_the_dropout_masks_of_an_arm_do_not_depend_on_the_other_arms(folder: Path, device: str) -> None:
    settings = [f"trainer.accelerator={device}", "arms.dropout=0.2"]
    both, again, alone = (
        run(folder, *settings, *more)
        for more in (["run.name=both"], ["run.name=again"], ["run.name=one", "arms.ranks=[6]"])
    )
    assert difference(both, again) < 1e-10
    assert largest_difference(factors(both, "r6-s0"), factors(alone, "r6-s0")) < 1e-10


def test_packing_does_not_change_the_training(folder: Path, device: str) -> None:
    """All pairs in one step, so that the order of the examples makes no difference."""
    settings = [f"trainer.accelerator={device}", "data.batch=52", "trainer.max_steps=3", "snapshots.every=3"]
    packed, apart = (
        run(folder, *settings, f"data.packing={packing}", f"run.name=packing-{packing}", "data.max_length=60")
        for packing in ("true", "false")
    )
    assert difference(packed, apart, 3) < 1e-8


def test_a_base_in_4_bits_learns(folder: Path, device: str) -> None:
    pytest.importorskip("bitsandbytes")
    settings = ["model.dtype=nf4", "trainer.precision=bf16-mixed", "run.name=nf4"]
    quantised = run(folder, f"trainer.accelerator={device}", *settings)
    for arm in ARMS:
        assert losses(quantised, arm)[-1] < losses(quantised, arm)[0] - 0.05


def test_the_analysis_on_a_device_gives_the_tables_of_the_cpu(single: Path, device: str) -> None:
    left, right = (RunDirectory(single).adapter(arm) for arm in ARMS)
    here, there = (compare(left, right, device=where) for where in (device, "cpu"))
    for name in ("phi", "pairs", "sites"):
        pd.testing.assert_frame_equal(getattr(here, name), getattr(there, name), rtol=0, atol=1e-6)
