"""Whole processes, timed from outside; what a run wrote tells when its first step began and its last one ended."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

GIB = 2**30


class Process(NamedTuple):
    """A process that has ended.

    Attributes:
        began: seconds since 1970.
        wall_s: from its command to its end.
        processor_s: of all cores in this time.
        peak_bytes: most memory of it that was resident.
        printed: its standard output and errors.
    """

    began: float
    wall_s: float
    processor_s: float
    peak_bytes: int
    printed: str


def process(*command: str, python: str = sys.executable) -> Process:
    """Run Python with these arguments to its end.

    Raises:
        SystemExit: it failed; its last line says why.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        began = time.time()
        started = subprocess.Popen([python, *command], stdout=log, stderr=log)
        _, status, used = os.wait4(started.pid, 0)
        ended = time.time()
        started.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        printed = log.read()
    if started.returncode:
        sys.exit(f"error: {' '.join(command)} failed: {printed.strip().splitlines()[-1:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Process(began, ended - began, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, printed)


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
        print(f"{folder.name} …", end=" ", flush=True)
        found = vars(measure())
        file.write_text(json.dumps(found, indent=2))
        print(f"{found['wall_s']:.1f} s", flush=True)
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
