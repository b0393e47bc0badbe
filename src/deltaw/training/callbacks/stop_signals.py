"""Answer SIGTERM and SIGINT: training at the end of a step, judging at once."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from deltaw.training.launching import say


class StopSignals(Callback):
    """Note SIGTERM and SIGINT during training, so that the step in progress can end; while judging, end at once.

    This callback is the first in the list: until its `on_train_start`, Lightning's own handlers are in place, and they
    raise in the middle of a step.

    Attributes:
        caught: the number of the signal; None if none has come.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._answer(self._note)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._answer(_end)

    def _answer(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number

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
