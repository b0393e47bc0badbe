"""Processes that make batches ahead of the training."""

import os
import signal
from collections.abc import Iterator
from threading import Thread
from typing import Any

from torch.utils.data import DataLoader, Dataset


class BatchesAhead(DataLoader[Any]):
    """PyTorch's DataLoader, whose workers neither SIGINT nor SIGTERM ends, unless the parent sends SIGTERM.

    A terminal, systemd or SLURM sends them to all processes of a run, and the parent needs batches for the rest of its
    step. When the parent is gone, a worker of PyTorch ends by itself.
    """

    def __init__(self, batches: Dataset[Any], **options: Any):
        super().__init__(batches, worker_init_fn=_heed_parent_alone, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # an iterator that PyTorch keeps to itself
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        try:
            return super().__iter__()  # its workers start with both signals blocked, so that none comes too early
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_parent_alone(worker: int) -> None:
    Thread(target=_end_when_parent_asks, daemon=True).start()


def _end_when_parent_asks() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(128 + signal.SIGTERM)
