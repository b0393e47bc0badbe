"""A step never waits for the device, unless it reads metrics or writes a snapshot."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from deltaw.training.callbacks.progress import Progress
from deltaw.training.task import LoraArms
from tests.support.processes import forked
from tests.support.tiny import run
from tests.support.waiting import Waiting

SETTINGS = ["trainer.max_steps=8", "metrics.every=4", "metrics.validate_every=8", "snapshots.every=8"]


def count_in_steps(patch: pytest.MonkeyPatch) -> dict[int, Counter[str]]:
    """The waiting calls of each step after the first, by its number: from the end of the step before to its own end.

    Lightning's own are among them. The steps of a run that starts under `patch` come to be in it.
    """
    counted: dict[int, Counter[str]] = {}
    blocks: list[Waiting] = []
    original = Progress.on_train_batch_end  # of the last callback

    def on_train_batch_end(self: Progress, trainer, task, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        original(self, trainer, task, outputs, batch, batch_idx)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if blocks:
            blocks[-1].__exit__(None, None, None)
            counted[trainer.global_step] = blocks[-1].calls
        if trainer.global_step < trainer.max_steps:
            blocks.append(Waiting())
            blocks[-1].__enter__()

    patch.setattr(Progress, "on_train_batch_end", on_train_batch_end)
    return counted


@pytest.mark.parametrize(
    "settings",
    [
        ["data.micro_batch=2", "arms.dropout=0.1", "optim.label_smoothing=0.1", "trainer.precision=bf16-mixed"],
        ["data.packing=true", "arms.shadows=2", "model.gradient_checkpointing=true"],
    ],
    ids=["dropout", "packing"],
)
def test_only_steps_that_read_metrics_or_write_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    counted = count_in_steps(monkeypatch)
    run(folder, *SETTINGS, *settings, f"run.name=waits-{len(settings)}")
    assert {step for step, calls in counted.items() if calls} == {4, 8}, counted


def test_every_call_that_waits_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step does one of them on purpose."""
    original = LoraArms.loss_sums
    waits: list[Callable[[Tensor], object]] = [
        lambda losses: losses.sum().item(),
        lambda losses: losses.detach().tolist(),
        lambda losses: bool(losses.isnan().any()),
        lambda losses: losses[losses > 0],
        lambda losses: losses.detach().cpu(),
        lambda losses: losses.nonzero(),
    ]

    def loss_sums(self: LoraArms, batch: dict[str, Tensor]) -> Tensor:
        losses = original(self, batch)
        if 1 <= self.trainer.global_step <= len(waits):
            waits[self.trainer.global_step - 1](losses)
        return losses

    monkeypatch.setattr(LoraArms, "loss_sums", loss_sums)
    counted = count_in_steps(monkeypatch)
    run(folder, *SETTINGS, "run.name=waits", "metrics.every=8")
    assert [step for step, calls in counted.items() if calls] == [*range(2, len(waits) + 2), 8]
    assert all("test_waiting.py" in str(counted[step]) for step in range(2, len(waits) + 2))


@pytest.mark.ddp
def test_several_processes_ask_each_other_for_signals_on_the_cpu_alone(folder: Path) -> None:
    """By default Lightning asks through the GPUs, before each micro-batch."""
    with forked(folder, *SETTINGS, "run.name=waits-ddp", "engine=ddp", before=partial(count_and_write, folder)):
        pass
    for rank in range(2):
        calls = json.loads((folder / f"waiting-{rank}.json").read_text())
        assert set(calls) == {"__bool__ at stop_signals.py", "_local_scalar_dense.default at stop_signals.py"}


def count_and_write(folder: Path) -> None:
    """Have the calls that wait in step 2 written to a file of this process."""
    patch = pytest.MonkeyPatch()
    counted = count_in_steps(patch)
    original = Progress.on_train_batch_end

    def on_train_batch_end(self: Progress, trainer, task, *rest) -> None:  # type: ignore[no-untyped-def]
        original(self, trainer, task, *rest)
        if trainer.global_step == 2:
            places = [call.rpartition(":")[0] for call in counted[2]]
            (folder / f"waiting-{trainer.global_rank}.json").write_text(json.dumps(places))

    patch.setattr(Progress, "on_train_batch_end", on_train_batch_end)
