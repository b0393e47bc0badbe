"""Write snapshots and checkpoints."""

import time

from pytorch_lightning import Callback, Trainer
from torch import Tensor

from deltaw.lora.snapshot import adapter_config, adapter_tensors
from deltaw.model.split import split_metadata
from deltaw.run.files import replacing
from deltaw.run.writer import RunWriter
from deltaw.training.callbacks.steps import ends_step
from deltaw.training.callbacks.stop_signals import StopSignals
from deltaw.training.task import LoraArms


class Snapshots(Callback):
    """Write the factors of every arm and shadow at step 0, every `every` optimiser steps and at the end.

    A checkpoint goes with each of them, except at step 0. After a signal to stop, write a checkpoint and end the
    training; the same command goes on from there.

    Args:
        writer: the run directory.
        signals: knows whether a signal to stop has come.
        every: optimiser steps between snapshots.
        base_path: the name of the base in `adapter_config.json`.
    """

    def __init__(self, writer: RunWriter, signals: StopSignals, every: int, base_path: str):
        self.writer, self.signals, self.every, self.base_path = writer, signals, every, base_path

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.global_step == 0:
            self._snapshot(trainer, task)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, task: LoraArms, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if not ends_step(trainer, batch_idx):
            return
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        stop = self.signals.stop()
        started = time.perf_counter()
        if due:
            self._snapshot(trainer, task)
        if due or stop:
            self._checkpoint(trainer)
        if due and trainer.is_global_zero:
            self.writer.append_metrics(trainer.global_step, [("", "snapshot_s", time.perf_counter() - started)])
        if stop:
            trainer.should_stop = True

    def _snapshot(self, trainer: Trainer, task: LoraArms) -> None:
        for k, arm in enumerate(task.learners):
            tensors = adapter_tensors(task.base, k)
            if trainer.is_global_zero:
                config = adapter_config(arm, task.base, self.base_path, task.objective.task_type)
                metadata = split_metadata(task.base)
                self.writer.write_snapshot(arm.name, trainer.global_step, tensors, config, metadata)

    def _checkpoint(self, trainer: Trainer) -> None:
        last = self.writer.checkpoint
        if not trainer.is_global_zero:
            trainer.save_checkpoint(last, weights_only=False)  # gathers the parts of the arms, and writes nothing
            return
        with self.writer.writing(last), replacing(last) as new:
            trainer.save_checkpoint(new, weights_only=False)
