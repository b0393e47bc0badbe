"""What happens at the end of an optimiser step: losses are recorded, snapshots written, and a run told to stop stops.

The order of the callbacks matters: a checkpoint after step t finds everything up to t already recorded.
"""

import signal
import time
from functools import partial
from random import Random
from types import FrameType
from typing import Any

import torch
from jaxtyping import Bool
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from deltaw.data.example import IGNORED
from deltaw.data.pairs import SAMPLE
from deltaw.errors import UserError
from deltaw.lora.layers import inputs_of_base
from deltaw.lora.snapshot import adapter_config, adapter_tensors
from deltaw.model.split import split_metadata
from deltaw.run.writer import RunWriter
from deltaw.training.metrics import scores
from deltaw.training.task import LoraArms


def _ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch was the last of its optimiser step; `global_step` alone is seen once a micro-batch."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class OpenRun(Callback):
    """Take the run directory before anything is written to it: process 0 decides, and all agree or all stop.

    Args:
        writer: the directory.
        step: the step that this process is about to resume from, None for a start.
        engine: that this process trains under.
        record: what `run.json` is to hold.
    """

    def __init__(self, writer: RunWriter, step: int | None, engine: str, record: dict[str, Any]):
        self.writer, self.step, self.engine, self.record = writer, step, engine, record

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        mine = (self.step, self.engine, self.writer.config)
        same = trainer.strategy.broadcast(mine) == mine
        if not trainer.strategy.reduce_boolean_decision(same, all=True):
            raise UserError(
                f"process {trainer.global_rank} starts from step {self.step} under engine={self.engine}, and not all "
                "have the same step, engine and config: start them with the same command on one file system"
            )
        refusal = None
        if trainer.is_global_zero:
            try:
                self.writer.open(self.step, self.record)
            except UserError as error:
                refusal = str(error)
        if refusal := trainer.strategy.broadcast(refusal):
            raise UserError(refusal)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.writer.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.writer.close()


class StopSignals(Callback):
    """Note SIGTERM and SIGINT while training, so that the step in progress can end; `caught` is then the number.

    To be the first of the callbacks at the start of training: Lightning's own handlers, which raise in the middle of
    a step, are in place until then.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


class KeepInputs(Callback):
    """Before the first step, write what every adapted module of the base reads at some tokens, unless it is there.

    All processes compute them, since each may hold a part of the base alone, and process 0 writes. Nothing of it
    reaches the training.

    Args:
        writer: the run directory.
        batches: rows that the tokens are drawn from: `SAMPLE`, or all where there are fewer. How they are cut does
            not matter. An encoder's and a decoder's are drawn apart.
    """

    def __init__(self, writer: RunWriter, batches: list[dict[str, Tensor]]):
        self.writer, self.batches = writer, batches

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.strategy.broadcast(self.writer.inputs.exists()):
            return
        batches = [trainer.strategy.batch_to_device(batch) for batch in self.batches]
        sequences = zip(*(task.objective.read(batch) for batch in batches), strict=True)
        chosen = zip(*(drawn(list(masks)) for masks in sequences), strict=True)
        task.eval()
        with trainer.precision_plugin.val_step_context():
            parts = [
                inputs_of_base(task.base, partial(task.objective.logits, task.base, batch), masks)
                for batch, masks in zip(batches, chosen, strict=True)
            ]
        task.train()
        if trainer.is_global_zero:
            inputs = {module: torch.cat([part[module] for part in parts]) for module in task.modules_adapted}
            self.writer.write_inputs(inputs)


def drawn(masks: list[Bool[Tensor, "_ _"]]) -> list[Bool[Tensor, "_ _"]]:
    """`SAMPLE` of all tokens in the masks, or all where there are fewer: the same, however the rows are cut."""
    counts = [int(mask.sum()) for mask in masks]
    kept = torch.zeros(sum(counts), dtype=torch.bool, device=masks[0].device)
    kept[Random(0).sample(range(len(kept)), min(SAMPLE, len(kept)))] = True
    return [mask.masked_scatter(mask, part) for mask, part in zip(masks, kept.split(counts), strict=True)]


class RecordLosses(Callback):
    """Losses of every arm and the task's metrics, to `metrics.csv`, the terminal and Lightning's loggers.

    Args:
        writer: the run directory.
        validation: batches of pairs that no arm trains on; every arm is measured on all of them.
        every: optimiser steps between records of the training loss.
        validate_every: optimiser steps between validations; there is one at the start and one at the end as well.
    """

    def __init__(self, writer: RunWriter, validation: list[dict[str, Tensor]], every: int, validate_every: int):
        self.writer, self.validation = writer, validation
        self.every, self.validate_every = every, validate_every
        self._count_from(0)

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.global_step == 0:
            self._validate(trainer, task)
        self._count_from(trainer.global_step)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, task: LoraArms, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        self.tokens += sum(int(mask.sum()) for mask in task.objective.read(batch)) * trainer.world_size
        if not _ends_step(trainer, batch_idx):
            return
        if trainer.global_step % self.every == 0:
            losses = trainer.strategy.reduce(task.step_loss, reduce_op="sum").tolist()
            seconds = time.perf_counter() - self.since
            task.log("loss", sum(losses) / len(losses), prog_bar=True, logger=False)
            self._record(
                trainer,
                task,
                {"train/loss": losses, "train/skipped": [float(count) for count in task.skipped.tolist()]},
            )
            steps = trainer.global_step - self.counted
            self._write(trainer, [("", "tokens_per_s", self.tokens / seconds), ("", "step_s", seconds / steps)])
            self._count_from(trainer.global_step)
        if trainer.global_step % self.validate_every == 0 or trainer.global_step == trainer.max_steps:
            started = time.perf_counter()
            self._validate(trainer, task)
            self.since += time.perf_counter() - started

    def _count_from(self, step: int) -> None:
        self.tokens, self.counted, self.since = 0, step, time.perf_counter()

    def _validate(self, trainer: Trainer, task: LoraArms) -> None:
        double = torch.float32 if task.device.type == "mps" else torch.float64  # which MPS does not have
        sums = torch.zeros(len(task.arms), dtype=double, device=task.device)
        count = sum(int((batch["labels"] != IGNORED).sum()) for batch in self.validation)
        metrics = [scores(task.objective, task.base.config).to(task.device) for _ in task.arms]
        task.eval()
        # Processes that hold parts of the base have to pass through it together: some may measure a batch for nothing.
        rounds = range(
            trainer.global_rank, -(-len(self.validation) // trainer.world_size) * trainer.world_size, trainer.world_size
        )
        for number in tqdm(rounds, "validation", leave=False, disable=not trainer.is_global_zero):
            batch = trainer.strategy.batch_to_device(self.validation[min(number, len(self.validation) - 1)])
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                losses, predicted = task.validation_sums(batch)
            if number >= len(self.validation):
                break
            sums += losses
            for metric, of_arm in zip(metrics, predicted, strict=True):
                metric.update(of_arm, task.objective.targets(batch))
        task.train()
        mean = trainer.strategy.reduce(sums, reduce_op="sum") / count
        values = [metric.compute() for metric in metrics]  # of what all processes counted
        measured = {"loss": mean.tolist()} | {name: [float(of[name]) for of in values] for name in values[0]}
        if task.objective.unit == "token":
            measured["perplexity"] = mean.exp().tolist()
        self._record(trainer, task, {f"val/{name}": values for name, values in measured.items()})
        if trainer.is_global_zero:
            for name, row in measured.items():
                if name != "perplexity":  # e to the loss
                    head = f"loss (nats a {task.objective.unit})" if name == "loss" else name
                    words = "  ".join(f"{arm.name} {value:.2f}" for arm, value in zip(task.arms, row, strict=True))
                    tqdm.write(f"step {trainer.global_step:>6}  validation {head:<19}  {words}")

    def _record(self, trainer: Trainer, task: LoraArms, metrics: dict[str, list[float]]) -> None:
        rows = [
            (arm.name, name, value)
            for name, values in metrics.items()
            for arm, value in zip(task.arms, values, strict=True)
        ]
        self._write(trainer, rows)

    def _write(self, trainer: Trainer, rows: list[tuple[str, str, float]]) -> None:
        if trainer.is_global_zero:
            self.writer.append_metrics(trainer.global_step, rows)
        for logger in trainer.loggers:
            logger.log_metrics({f"{name}/{arm}".rstrip("/"): value for arm, name, value in rows}, trainer.global_step)


class Snapshots(Callback):
    """Write every arm's factors at step 0, every `every` optimiser steps and at the end, and a checkpoint with them.

    On a signal to stop there is a checkpoint as well, and no further step. The same command goes on from there.

    Args:
        writer: the run directory.
        signals: tells whether to stop.
        every: optimiser steps between snapshots.
        base_path: the base as `adapter_config.json` names it.
    """

    def __init__(self, writer: RunWriter, signals: StopSignals, every: int, base_path: str):
        self.writer, self.signals, self.every, self.base_path = writer, signals, every, base_path

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.global_step == 0:
            self._snapshot(trainer, task)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, task: LoraArms, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if not _ends_step(trainer, batch_idx):
            return
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        stop = trainer.strategy.reduce_boolean_decision(self.signals.caught is not None, all=False)
        started = time.perf_counter()
        if due:
            self._snapshot(trainer, task)
        if due or stop:
            self._checkpoint(trainer)
        if due and trainer.is_global_zero:
            self.writer.append_metrics(trainer.global_step, [("", "snapshot_s", time.perf_counter() - started)])
        if stop:
            self.signals.caught = self.signals.caught or signal.SIGTERM  # another process was told
            trainer.should_stop = True

    def _snapshot(self, trainer: Trainer, task: LoraArms) -> None:
        for k, arm in enumerate(task.arms):
            tensors = adapter_tensors(task.base, k)
            if trainer.is_global_zero:
                config = adapter_config(arm, task.base, self.base_path, task.objective.task_type)
                told = split_metadata(task.base)
                self.writer.write_snapshot(arm.name, trainer.global_step, tensors, config, told)

    def _checkpoint(self, trainer: Trainer) -> None:
        last = self.writer.checkpoint
        new = last.with_name(f".{last.name}.new")
        with self.writer.writing(last):
            trainer.save_checkpoint(new, weights_only=False)
            if trainer.is_global_zero:
                new.replace(last)
