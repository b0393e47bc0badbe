"""`train.py` in processes of its own, several to a run."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.tiny import ROOT, overrides

TRAIN = ROOT / "train.py"
TORCHRUN = ["-m", "torch.distributed.run"]


def start(
    folder: Path,
    *more: str,
    by: Sequence[str] = (),
    script: Path = TRAIN,
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    """A run in `folder` that goes on by itself, in a group of processes of its own.

    Args:
        folder: where the base and the pairs are.
        more: settings.
        by: what starts the processes, and its arguments.
        script: what is run.
        before: called in the new process.
    """
    return subprocess.Popen(
        [sys.executable, *by, str(script), *overrides(folder, *more)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=before,
    )


def finish(job: subprocess.Popen[str], expected: int = 0) -> str:
    """What the run printed; it has to end with the `expected` exit code, and leave no process behind."""
    out, _ = job.communicate(timeout=300)
    assert job.returncode == expected, out
    assert not group_of(job), out
    return out


def group_of(job: subprocess.Popen[str]) -> list[int]:
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


def train(folder: Path, *more: str) -> Path:
    """A whole run, one of whose settings is its name; returns its directory."""
    finish(start(folder, *more))
    name = next(setting.partition("=")[2] for setting in more if setting.startswith("run.name="))
    return folder / "runs" / name
