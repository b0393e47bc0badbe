"""Record the losses and metrics of every arm."""

import time

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from deltaw.run.writer import RunWriter
from deltaw.training.callbacks.steps import ends_step
from deltaw.training.callbacks.stop_signals import StopError, StopSignals
from deltaw.training.task import LoraArms
from deltaw.training.validation import Batches, validate


class RecordLosses(Callback):
    """Report losses and metrics to `metrics.csv`, to Lightning's loggers and, for a validation, to the terminal.

    A validation also reports what every arm reaches on each example, to `evaluation.parquet`. A signal to stop leaves a
    validation, and the run that goes on begins with it. The one after the last step is not left: no run goes on there.

    Args:
        writer: the run directory.
        signals: knows whether a signal to stop has come.
        validation: batches of rows that no arm trains on, with the numbers of their examples; every arm is measured on
            all of them.
        groups: of all examples of the data set.
        every: optimiser steps between records of the training loss.
        validate_every: optimiser steps between validations; one more takes place before the first step, and one
            after the last.
    """

    def __init__(
        self,
        writer: RunWriter,
        signals: StopSignals,
        validation: Batches,
        groups: NDArray[np.int64],
        every: int,
        validate_every: int,
    ):
        self.writer, self.signals, self.validation, self.groups = writer, signals, validation, groups
        self.every, self.validate_every = every, validate_every
        self._count_from(0)

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.strategy.broadcast(self._lacks_validation(trainer.global_step)):
            self._validate(trainer, task)
            trainer.should_stop = self.signals.stop()
        self._count_from(trainer.global_step)
        learned = task.skipped < trainer.global_step
        task.learnt_last.copy_(learned * trainer.global_step)  # 0 until the first step of all is taken
        self.skipped = task.skipped.tolist()

    def on_train_end(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        self._warn_of_standstill(task)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, task: LoraArms, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        for mask in task.objective.read(batch):
            self.tokens += mask.sum()  # on the device, which is read when the losses are
        if not ends_step(trainer, batch_idx):
            return
        if trainer.global_step % self.every == 0:
            self._record_training(trainer, task)
        if self._validates(trainer.global_step) or trainer.global_step == trainer.max_steps:
            started = time.perf_counter()
            self._validate(trainer, task)
            self.since += time.perf_counter() - started  # step_s leaves validations out

    def _count_from(self, step: int) -> None:
        self.tokens: Tensor | int = 0
        self.counted, self.since = step, time.perf_counter()

    def _record_training(self, trainer: Trainer, task: LoraArms) -> None:
        losses = trainer.strategy.reduce(task.step_loss, reduce_op="sum").tolist()
        seconds, steps = time.perf_counter() - self.since, trainer.global_step - self.counted
        self._warn_of_standstill(task)
        skipped = [float(count) for count in self.skipped[: len(task.arms)]]
        self._record(trainer, task, {"train/loss": losses, "train/skipped": skipped})
        tokens = int(self.tokens) * trainer.world_size
        self._write(trainer, [("", "tokens_per_s", tokens / seconds), ("", "step_s", seconds / steps)])
        self._count_from(trainer.global_step)

    def _warn_of_standstill(self, task: LoraArms) -> None:
        before, self.skipped = self.skipped, task.skipped.tolist()
        for arm, old, new, step in zip(task.learners, before, self.skipped, task.learnt_last.tolist(), strict=True):
            if old < task.max_skipped <= new:
                rank_zero_warn(
                    f"{arm.name} has {f'not learned since step {step}' if step else 'never learned'} and stands still: "
                    f"its gradients were not finite in optim.max_skipped={task.max_skipped} steps. Other arms go on; "
                    + ("try a lower learning rate" if step else self._way_on())
                )

    def _way_on(self) -> str:
        """What to try where no step was taken, so that the learning rate has played no part."""
        model, data = self.writer.config.model, self.writer.config.data
        return f"try another dtype than model.dtype={model.dtype}, or other data than {data.path or data.name}"

    def _validates(self, step: int) -> bool:
        return step % self.validate_every == 0

    def _lacks_validation(self, step: int) -> bool:
        """Whether a run that begins or goes on here has to validate first."""
        return self._validates(step) and step not in set(self.writer.run.evaluation().step)

    def _validate(self, trainer: Trainer, task: LoraArms) -> None:
        """Measure and record, or neither."""
        last = trainer.global_step == trainer.max_steps
        check = (lambda: None) if last else self.signals.check
        try:
            measured, each = validate(trainer, task, self.validation, self.groups, check)
        except StopError:
            return
        self._record(trainer, task, {f"val/{name}": values for name, values in measured.items()})
        if trainer.is_global_zero:
            self.writer.append_evaluation(each)
            self._print(trainer.global_step, task, measured)

    def _print(self, step: int, task: LoraArms, measured: dict[str, list[float]]) -> None:
        for name, values in measured.items():
            if name != "perplexity":  # e to the power of the loss, which is printed
                title = f"loss (nats a {task.objective.unit})" if name == "loss" else name
                words = "  ".join(f"{arm.name} {value:.2f}" for arm, value in zip(task.arms, values, strict=True))
                tqdm.write(f"step {step:>6}  validation {title:<19}  {words}")

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
