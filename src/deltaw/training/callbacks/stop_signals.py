"""Answer SIGTERM and SIGINT: training at the end of a step, a validation after a batch, judging at once."""

import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from deltaw.training.launching import say


class StopError(Exception):
    """A signal has come, and what is in progress is to be left."""


class StopSignals(Callback):
    """Note SIGTERM and SIGINT during training, so that what is in progress can end; while judging, end at once.

    This callback is the first in the list: until its `on_train_start`, Lightning's own handlers are in place, and they
    raise in the middle of a step.

    Args:
        timeout: how long a process waits for the others; None for PyTorch's default.

    Attributes:
        caught: the number of the signal; None if none has come. Once all have asked, every process has one.
    """

    def __init__(self, timeout: timedelta | None = None):
        self.timeout = timeout
        self.caught: int | None = None
        self._group: dist.ProcessGroup | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._answer(self._note)
        if trainer.world_size > 1:  # of processors: to ask through GPUs would wait for all that these have to compute
            self._group = dist.new_group(backend="gloo", timeout=self.timeout)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._answer(_end)

    def _answer(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number

    def stop(self) -> bool:
        """Whether any process has caught a signal; all processes ask at the same moments."""
        if self._group is None:
            return self.caught is not None
        caught = torch.tensor(self.caught or 0)
        dist.all_reduce(caught, dist.ReduceOp.MAX, self._group)
        if caught:  # else a signal that has come meanwhile stays, for the next time that all ask
            self.caught = int(caught)
        return bool(caught)

    def check(self) -> None:
        """Raise `StopError` if any process has caught a signal."""
        if self.stop():
            raise StopError

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def _end(number: int, frame: FrameType | None) -> None:
    """What was judged is recorded, and nothing else is lost."""
    say("stopped before all was judged: the same command goes on")
    sys.exit(128 + number)
