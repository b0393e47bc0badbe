"""`train.py` in several processes: as a user starts it, or forked where all is loaded, which takes no time."""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from deltaw.errors import UserError
from tests.support.tiny import ROOT, overrides, run

TRAIN = ROOT / "train.py"
FORKSERVER = get_context("forkserver")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def forked(
    folder: Path, *settings: str, processes: int = 2, before: Callable[[], None] | None = None, expected: int = 0
) -> Iterator[list[ForkServerProcess]]:
    """The processes of a run, which torchrun seems to have started; all have ended behind the block.

    Args:
        folder: where the base and the pairs are.
        settings: of the run.
        processes: how many.
        before: called first in each of them.
        expected: their exit code.
    """
    together = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": free_port(), "GROUP_RANK": 0}
    logs = [folder / f"process-{rank}.log" for rank in range(processes)]
    started: list[ForkServerProcess] = []
    for rank, log in enumerate(logs):
        told = together | {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
        environment = dict(os.environ) | {name: str(value) for name, value in told.items()}
        arguments = (folder, [*settings, "trainer.devices=auto"], environment, log, before)
        process = FORKSERVER.Process(target=_one, args=arguments)
        process.start()
        started.append(process)
    yield started
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [expected] * processes, "\n".join(map(Path.read_text, logs))


def _one(
    folder: Path, settings: list[str], environment: dict[str, str], log: Path, before: Callable[[], None] | None
) -> None:
    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        if before:
            before()
        run(folder, *settings)
    except UserError:  # as train.py ends
        traceback.print_exc()
        sys.exit(1)


def train(folder: Path, *settings: str, processes: int = 2) -> Path:
    """A whole run of several processes, one of whose settings is its name; returns its directory."""
    with forked(folder, *settings, processes=processes):
        pass
    return folder / "runs" / next(setting.partition("=")[2] for setting in settings if setting.startswith("run.name="))


def start(
    folder: Path,
    *settings: str,
    by: Sequence[str] = (),
    flags: Sequence[str] = (),
    before: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
) -> "subprocess.Popen[str]":
    """A run of `train.py` that goes on by itself, in a group of processes of its own.

    Args:
        folder: where the base and the pairs are.
        settings: of the run.
        by: what starts the processes, and its arguments.
        flags: of Hydra, which come before the settings.
        before: called in the new process.
        environment: what its environment has besides ours.
    """
    return subprocess.Popen(
        [sys.executable, *by, str(TRAIN), *flags, *overrides(folder, *settings)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=before,
        env=os.environ | (environment or {}),
    )


def finish(job: "subprocess.Popen[str]", expected: int = 0) -> str:
    """What the run printed; it has to end with the `expected` exit code, and leave no process behind."""
    out, _ = job.communicate(timeout=300)
    assert job.returncode == expected, out
    assert not group_of(job), out
    return out


def group_of(job: "subprocess.Popen[str]") -> list[int]:
    """The living processes of a run's group."""
    living = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(group) == job.pid and state != "Z":
            living.append(int(process.name))
    return sorted(living)
