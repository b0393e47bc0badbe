"""One bar of the training, with the loss of every arm by its name."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from deltaw.training.callbacks.steps import ends_step
from deltaw.training.task import LoraArms

SHOWN = 6  # arms whose losses fit into a line


class Progress(Callback):
    """A bar that counts optimiser steps, in a terminal alone: a file gets no carriage returns.

    Args:
        every: optimiser steps between readings of the losses, each of which waits for the device.
    """

    def __init__(self, every: int):
        self.every = every
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done, hidden = trainer.global_step, None if trainer.is_global_zero else True  # None hides it outside a terminal
        self.bar = tqdm(desc="training", total=trainer.max_steps, initial=done, unit="step", disable=hidden)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, task: LoraArms, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if self.bar is None or not ends_step(trainer, batch_idx):
            return
        self.bar.update()
        if not self.bar.disable and trainer.global_step % self.every == 0:
            losses = zip(task.arms, task.step_loss.tolist(), strict=True)
            self.bar.set_postfix({arm.name: f"{loss:.2f}" for arm, loss in list(losses)[:SHOWN]})

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
