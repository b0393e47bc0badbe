"""Batches that other processes make ahead."""

import multiprocessing
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import deltaw.commands.train as commands_train
from deltaw.commands.train import loader
from deltaw.data.batches import StepBatches
from deltaw.lora.arm import Arm
from tests.support.runs import assert_same_run, at_step
from tests.support.texts import examples, pairs
from tests.support.tiny import run

ARMS = [Arm(f"r2-s{seed}", 2, seed=seed, alpha=1.0, scaling="alpha/r", lr=1e-3) for seed in (0, 1)]
WITH_SHADOWS = ["arms.shadows=1", "data.micro_batch=2"]


def steps() -> StepBatches:
    return StepBatches(examples(pairs(20)), ARMS, 6, 3, 10, 0, 1, shadows=1)


def signal_from_elsewhere(number: int) -> None:
    """Send a signal to all workers, as a terminal or SLURM does: this process does not send it itself."""
    for worker in multiprocessing.active_children():
        subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)


def workers() -> list[int]:
    return [int(worker.pid or 0) for worker in multiprocessing.active_children()]


@pytest.mark.parametrize("step", [None, 3])
def test_workers_make_the_same_batches_and_heed_their_parent_alone(step: int | None) -> None:
    before = workers()
    expected, batches = list(loader(steps(), step, 0, False)), list[dict[str, torch.Tensor]]()
    for batch in loader(steps(), step, 2, False):
        if not batches:
            assert len(workers()) == len(before) + 2
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
                signal_from_elsewhere(number)
        batches.append(batch)
    assert len(batches) == len(expected) == 20 - 2 * (step or 0)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[name], other[name]) for name in batch)
    assert workers() == before


def test_a_parent_can_end_a_worker() -> None:
    """So that no worker outlives a parent that has failed."""
    ahead = iter(loader(steps(), None, 1, False))
    next(ahead)
    (worker,) = multiprocessing.active_children()
    signal_from_elsewhere(signal.SIGTERM)
    with suppress(RuntimeError):  # of PyTorch, if it sees the end of its worker before this test does
        while worker.is_alive():  # for a signal is lost that comes while the one from elsewhere is still to be taken
            worker.terminate()
            worker.join(1)
    assert worker.exitcode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_workers_first_instruction_does_not_end_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = multiprocessing.context.ForkProcess.start

    def start_and_signal(process: multiprocessing.context.ForkProcess) -> None:
        start(process)
        subprocess.run(["kill", f"-{number}", str(process.pid)], check=True)

    expected = list(loader(steps(), 8, 0, False))
    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", start_and_signal)
    assert len(list(loader(steps(), 8, 2, False))) == len(expected) > 0


def test_a_run_with_workers_that_a_signal_stops_resumes_to_the_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal reaches the workers too, in the middle of a step that needs another batch."""
    whole = run(folder, *WITH_SHADOWS, "run.name=no-workers")

    def with_workers(batches: StepBatches, step: int | None, workers: int, pinned: bool) -> object:
        assert (workers, pinned) == (0, False)  # on a CPU
        return loader(batches, step, 2, pinned)

    def stop() -> None:
        signal_from_elsewhere(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(commands_train, "loader", with_workers)
    before = workers()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        at_step(7, stop, patch)
        run(folder, *WITH_SHADOWS, "run.name=workers")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert workers() == before
    assert_same_run(run(folder, *WITH_SHADOWS, "run.name=workers"), whole)
