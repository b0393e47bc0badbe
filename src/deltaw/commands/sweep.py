"""Hydra's `-m`: each job is started afresh as a plain run, in a process tree of its own.

Within Hydra's own process, a second job would find the process group, environment and memory of the first.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from deltaw.errors import UserError

# What the default name of a run tells already.
_IN_THE_NAME = {
    "arms.ranks",
    "arms.seeds",
    "arms.lrs",
    "arms.controls",
    "arms.list",
    "model",
    "model.path",
    "data",
    "data.path",
}
ARGUMENTS = "DELTAW_ARGUMENTS"  # those of the command line, also where another script, as submitit's, calls the job
_DISTRIBUTED = re.compile(r"(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|MASTER_(ADDR|PORT)|PL_GLOBAL_SEED")


def note_arguments() -> None:
    """Let the jobs of a sweep, wherever they are started, know the command line."""
    os.environ[ARGUMENTS] = json.dumps(sys.argv[1:])


def relaunch(script: str) -> bool:
    """In a job of a sweep, run `script` with the job's overrides and return True; elsewhere return False.

    Raises:
        UserError: the job failed (the sweep goes on and ends with a non-zero exit), or torchrun started the sweep.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return False
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun with -m would run the sweep once a process: start it with python train.py -m")
    overrides = list(hydra.overrides.task)
    command = [
        sys.executable,
        str(Path(script).resolve()),
        "--config-name",
        str(hydra.job.config_name),
        *overrides,
    ]
    environment = {name: value for name, value in os.environ.items() if not _DISTRIBUTED.fullmatch(name)}
    if suffix := _suffix(overrides, _swept_keys(json.loads(os.environ[ARGUMENTS]))):
        command.append(f"run.suffix='{suffix}'")
    print(f"sweep job {hydra.job.num}: {' '.join(overrides)}", flush=True)
    if code := _wait(subprocess.Popen(command, env=environment, cwd=hydra.runtime.cwd)):
        raise UserError(f"sweep job {hydra.job.num} ({' '.join(overrides)}) ended with exit code {code}")
    return True


def _wait(job: subprocess.Popen[bytes]) -> int:
    """The job's exit code. SIGTERM and SIGINT are the job's to answer, and then end the sweep with it."""
    caught: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        job.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    code = job.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if caught:
        sys.exit(128 + caught[0])
    return code


def _swept_keys(arguments: list[str]) -> set[str]:
    """The keys that a command line gives several values, one a job."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    return {override.key_or_group for override in parsed if override.is_sweep_override()}


def _suffix(overrides: list[str], swept: set[str]) -> str:
    """What the overrides that differ between jobs add to a run's name, as `-optim.warmup-0.1`."""
    told = [override.lstrip("+") for override in overrides]
    parts = [override for override in told if override.partition("=")[0] in swept - _IN_THE_NAME]
    return "".join("-" + re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-") for part in parts)
