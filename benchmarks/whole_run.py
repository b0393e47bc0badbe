"""Whole processes, timed from outside; what a run wrote tells when its first step began and its last one ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from pathlib import Path
from threading import Condition
from typing import Any, NamedTuple, TypeVar

GIB = 2**30
TURN_S = 0.5  # short beside the times for which a shared machine is slower or faster
POLL_S = 0.005

T = TypeVar("T")


class Process(NamedTuple):
    """A process that has ended.

    Attributes:
        ran: from when to when it ran, in seconds since 1970; between two of these it stood still.
        processor_s: of all cores in this time.
        peak_bytes: most memory of it that was resident.
        printed: its standard output and errors.
    """

    ran: Sequence[tuple[float, float]]
    processor_s: float
    peak_bytes: int
    printed: str

    @property
    def wall_s(self) -> float:
        """Seconds that it ran, from its command to its end."""
        return self.by(inf)

    def by(self, moment: float) -> float:
        """Seconds that it had run by a moment, which is in seconds since 1970."""
        return sum(max(0.0, min(moment, end) - began) for began, end in self.ran)


class Turns:
    """The machine, which processes get one at a time, in the order in which they ask for it.

    Attributes:
        seconds: of a turn; a process that ends sooner gives back the rest.
    """

    def __init__(self, seconds: float = inf) -> None:
        self.seconds = seconds
        self._asking: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The caller's turn, for which it waits."""
        mine = object()
        with self._changed:
            self._asking.append(mine)
            self._changed.wait_for(lambda: self._asking[0] is mine)
        try:
            yield
        finally:
            with self._changed:
                self._asking.popleft()
                self._changed.notify_all()


def in_turns(jobs: Mapping[str, Callable[[Turns], T]]) -> dict[str, T]:
    """What each job gives, whose processes share the machine by short turns: a slower minute meets them all.

    Args:
        jobs: each runs its processes with the turns that it is given.
    """
    turns = Turns(TURN_S)
    with ThreadPoolExecutor(len(jobs)) as pool:
        given = {name: pool.submit(job, turns) for name, job in jobs.items()}
    return {name: job.result() for name, job in given.items()}


def process(*command: str, python: str = sys.executable, turns: Turns | None = None) -> Process:
    """Run Python with these arguments to its end.

    Args:
        command: the arguments.
        python: the interpreter.
        turns: between its turns the process stands still; None for a single turn.

    Raises:
        SystemExit: it failed; its last line says why.
    """
    turns, started, ran, status = turns or Turns(), None, list[tuple[float, float]](), None
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        while status is None:
            with turns.turn():
                began = time.time()
                if started is None:
                    started = subprocess.Popen([python, *command], stdout=log, stderr=log)
                else:
                    os.kill(started.pid, signal.SIGCONT)
                status, used = _ended(started.pid, turns.seconds)
                if status is None:
                    os.kill(started.pid, signal.SIGSTOP)
                else:
                    started.returncode = os.waitstatus_to_exitcode(status)
                ran.append((began, time.time()))
        log.seek(0)
        printed = log.read()
    if status:
        sys.exit(f"error: {' '.join(command)} failed: {printed.strip().splitlines()[-1:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Process(ran, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, printed)


def _ended(pid: int, seconds: float) -> tuple[int | None, Any]:
    """How a process ended within so many seconds, and what it used; None if it goes on."""
    until = time.monotonic() + seconds
    while True:
        found, status, used = os.wait4(pid, os.WNOHANG)
        if found:
            return status, used
        if time.monotonic() > until:
            return None, used
        time.sleep(POLL_S)


def once(folder: Path, measure: Callable[[], Any]) -> dict[str, Any]:
    """The attributes of what `measure` gives; they stay in `folder`, and are read if they have been measured before.

    Args:
        folder: emptied of what a measurement left that was cut off.
        measure: gives an object with `wall_s`, in seconds.
    """
    file = folder / "measured.json"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found = vars(measure())
        file.write_text(json.dumps(found, indent=2))
        print(f"{folder.name}: {found['wall_s']:.1f} s", flush=True)
    measured: dict[str, Any] = json.loads(file.read_text())
    return measured


def first_step(run: Path) -> float:
    """When the first step of a run began: its snapshots of step 0 are written just before. Seconds since 1970."""
    return _written(run, 0)


def last_step(run: Path, step: int) -> float:
    """When the last step of a run, and its validation, had ended."""
    return _written(run, step)


def _written(run: Path, step: int) -> float:
    files = run.glob(f"snapshots/*/step-{step:08d}/adapter_model.safetensors")
    return max(file.stat().st_mtime for file in files)


def only_steps(run: Path, steps: int) -> Sequence[str]:
    """Settings of `train.py` for a run of nothing but steps, and of validations of one example at both ends."""
    return (
        f"run.dir={run}",
        f"trainer.max_steps={steps}",
        f"snapshots.every={steps}",
        f"metrics.validate_every={steps}",
        "data.validation=1",
        "data.judged=0",
        "truncate=[]",
        "trainer.devices=1",
    )
