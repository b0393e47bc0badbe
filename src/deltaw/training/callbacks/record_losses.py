"""Record losses and metrics of every arm."""

import time

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from tqdm import tqdm

from deltaw.data.example import IGNORED
from deltaw.run.writer import RunWriter
from deltaw.training.callbacks.steps import ends_step
from deltaw.training.metrics import scores
from deltaw.training.task import LoraArms


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
        if not ends_step(trainer, batch_idx):
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
