"""Faults during training are noticed and reported, and no snapshot is lost."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deltaw.errors import UserError
from deltaw.run.adapter import load_adapter
from deltaw.training.task import LoraArms
from tests.support.processes import finish, forked, group_of, start, train
from tests.support.runs import at_step
from tests.support.tiny import factors, largest_difference, metrics, run

MOMENTS = int(os.environ.get("DELTAW_KILLS", "2"))


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    return run(folder, "run.name=whole")


@pytest.mark.ddp
@pytest.mark.parametrize("seed", random.Random(0).sample(range(1000), MOMENTS))
def test_a_killed_process_ends_the_run_and_the_next_start_resumes_it(folder: Path, whole: Path, seed: int) -> None:
    draw = random.Random(seed)
    settings = [f"run.name=killed-{seed}", f"engine={draw.choice(['ddp', 'fsdp'])}"]
    job = start(folder, *settings, "trainer.devices=2")
    run_directory = folder / "runs" / f"killed-{seed}"
    while job.poll() is None and not (run_directory / "snapshots").exists():
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 5))
    if (living := group_of(job)) and job.poll() is None:
        os.kill(draw.choice(living), signal.SIGKILL)
    since = time.monotonic()
    out, _ = job.communicate(timeout=60)
    if job.returncode == 1:  # process 0 lived on, and was not killed by Lightning's observer of the others
        assert "error: process 1 ended by signal 9 (SIGKILL), so that process 0 could not go on" in out
    while group_of(job):
        assert time.monotonic() < since + 60
        time.sleep(0.1)
    for snapshot in run_directory.glob("snapshots/*/step-*"):
        load_adapter(snapshot)
    train(folder, *settings)
    for arm in ("r2-s0", "r6-s0"):
        assert largest_difference(factors(run_directory, arm), factors(whole, arm)) <= 1e-10


@pytest.mark.slow
@pytest.mark.ddp
def test_a_sweep_continues_after_a_failed_job_of_two_processes(folder: Path) -> None:
    seeds = ["arms.seeds=[0],[1]", "trainer.devices=2", "arms.lrs=[3e-3]"]
    failing = folder / "runs" / "base-pairs-r2-s0-lr0.003_r6-s0-lr0.003"
    failing.mkdir(parents=True)
    (failing / "something.txt").touch()
    out = finish(start(folder, *seeds, flags=["-m"]), 1)
    assert "holds no config.yaml of a run" in out
    assert "error: sweep job 0 (" in out.splitlines()[-1]
    second = folder / "runs" / "base-pairs-r2-s1-lr0.003_r6-s1-lr0.003"
    alone = run(folder, "arms.seeds=[1]", "arms.lrs=[3e-3]", "run.name=alone-s1")
    for arm in ("r2-s1-lr0.003", "r6-s1-lr0.003"):
        assert largest_difference(factors(second, arm), factors(alone, arm)) <= 1e-10


def broken(first: int, after: int, patch: pytest.MonkeyPatch) -> None:
    """Let the gradients of r2-s0 be infinite in some steps, and finite again afterwards."""
    original = LoraArms.loss_sums

    def loss_sums(self: LoraArms, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        losses = original(self, batch)
        breaks = self.training and first <= self.trainer.global_step < after
        return losses * torch.tensor([torch.inf if breaks else 1, 1])

    patch.setattr(LoraArms, "loss_sums", loss_sums)


@pytest.mark.parametrize("every", [1, 50])  # steps until the warning, or the end of the training
def test_an_arm_without_finite_gradients_stops_and_the_others_learn(
    folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    said = "r2-s0 has not learned since step 5 and stands still.*try a lower learning rate"
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match=said) as warnings:
        broken(5, 8, patch)
        hurt = run(folder, f"run.name=hurt-{every}", "optim.max_skipped=3", f"metrics.every={every}")
    assert len([one for one in warnings if "r2-s0 has not learned" in str(one.message)]) == 1
    assert largest_difference(factors(hurt, "r2-s0", 5), factors(hurt, "r2-s0", 20)) == 0
    assert largest_difference(factors(hurt, "r6-s0"), factors(whole, "r6-s0")) == 0
    assert every > 20 or "20,r2-s0,train/skipped,3.0" in metrics(hurt)


@pytest.mark.parametrize(("every", "stop"), [(1, None), (50, None), (1, 7)])
def test_an_arm_that_never_had_finite_gradients_is_not_told_to_learn_more_slowly(
    folder: Path, monkeypatch: pytest.MonkeyPatch, every: int, stop: int | None
) -> None:
    settings = [f"run.name=never-{every}-{stop}", "optim.max_skipped=9", f"metrics.every={every}"]
    broken(0, 12, monkeypatch)
    if stop:
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            at_step(stop, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
            run(folder, *settings)
    with pytest.warns(UserWarning, match="r2-s0 has never learned and stands still") as warnings:
        hurt = run(folder, *settings)
    (said,) = [str(one.message) for one in warnings if "r2-s0 has" in str(one.message)]
    assert "learning rate" not in said
    assert "another dtype than model.dtype=float32" in said and "pairs.jsonl" in said
    assert largest_difference(factors(hurt, "r2-s0", 0), factors(hurt, "r2-s0", 20)) == 0


def test_a_full_disk_is_reported_and_the_last_snapshot_stays(folder: Path, whole: Path) -> None:
    """A limit on the size of files lets the weights through, and not the checkpoint."""
    weights = next(whole.glob("snapshots/*/step-00000020/*.safetensors"))
    settings = ["run.name=full", "arms.ranks=[6]"]
    limit = (whole / "checkpoints" / "last.ckpt").stat().st_size // 2
    assert weights.stat().st_size < limit

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    job = start(folder, *settings, before=full)
    assert "could not be written" in finish(job, 1)
    assert load_adapter(folder / "runs" / "full" / "snapshots" / "r6-s0" / "step-00000000").sites
    assert not list((folder / "runs" / "full" / "checkpoints").glob("last.ckpt"))
    alone = run(folder, "run.name=not-full", "arms.ranks=[6]")
    assert largest_difference(factors(run(folder, *settings), "r6-s0"), factors(alone, "r6-s0")) == 0


def let_one_drift() -> None:
    """Let process 1 change one of its factors after the third step."""
    original = LoraArms.training_step

    def training_step(self: LoraArms, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and self.global_step == 3:
            self.base.get_submodule("model.layers.0.self_attn.q_proj").get_parameter("A.0").data += 1
        return original(self, batch, batch_idx)

    LoraArms.training_step = training_step  # type: ignore[method-assign]


def keep_gradients_apart() -> None:
    """Double the gradients of process 1, as if DDP did not know the factors."""

    def on_after_backward(self: LoraArms) -> None:
        for weight in self.parameters():
            if self.global_rank == 1 and weight.grad is not None:
                weight.grad *= 2

    LoraArms.on_after_backward = on_after_backward  # type: ignore[method-assign, assignment]


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("before", "message", "left"),
    [
        (let_one_drift, "after step 5 the arms of the processes are not the same", ["step-00000000"]),
        (keep_gradients_apart, "gradients of the processes are not the same", []),
    ],
)
def test_processes_that_train_different_arms_stop(
    folder: Path, before: Callable[[], None], message: str, left: list[str]
) -> None:
    with forked(folder, f"run.name={before.__name__}", before=before, expected=1):
        pass
    assert message in (folder / "process-0.log").read_text()
    taken = folder / "runs" / before.__name__ / "snapshots" / "r2-s0"
    assert [path.name for path in taken.glob("*")] == left  # no snapshot after the fault, and no run without a step


def test_factors_that_do_not_reach_the_loss_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_after_backward(self: LoraArms) -> None:
        for name, weight in self.named_parameters():
            if ".v_proj.B." in name and weight.grad is not None:
                weight.grad *= 0

    monkeypatch.setattr(LoraArms, "on_after_backward", on_after_backward)
    with pytest.raises(UserError, match=r"6 factors B have no gradient.*self_attn\.v_proj\.B\.0"):
        run(folder, "run.name=idle")
