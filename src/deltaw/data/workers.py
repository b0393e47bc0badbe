"""Processes that make batches ahead of the training."""

import os
import signal
from threading import Thread


def heed_parent_alone(worker: int) -> None:
    """Let SIGINT and SIGTERM end this worker only if its parent sends them; `worker` is its number.

    A terminal, systemd or SLURM sends them to all processes of a run, and the parent needs batches for the rest of its
    step. When the parent is gone, a worker of PyTorch ends by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # of this thread, and so of all that it starts
    Thread(target=_end_when_parent_asks, daemon=True).start()


def _end_when_parent_asks() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(128 + signal.SIGTERM)
