"""Hydra's `-m`: each job of a sweep runs in a new process.

Inside Hydra's own process, a second job would meet the process group, environment and memory of the first.
"""

import json
import os
import re
import signal
import subprocess
import sys
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from deltaw.config.keys import keys_of
from deltaw.config.schema import TrainConfig
from deltaw.errors import UserError

_IN_THE_NAME = {name for name, key in keys_of(TrainConfig) if key.in_name}
# The environment variable that keeps the command line: under submitit, a job starts from another script.
ARGUMENTS = "DELTAW_ARGUMENTS"
_DISTRIBUTED = re.compile(r"(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|MASTER_(ADDR|PORT)|PL_GLOBAL_SEED")


def note_arguments() -> None:
    """Keep the command line for the jobs of a sweep."""
    os.environ[ARGUMENTS] = json.dumps(sys.argv[1:])


def relaunch() -> bool:
    """In a job of a sweep, run the job in a process of its own and return True; elsewhere return False.

    Raises:
        UserError: the job failed (the sweep goes on and ends with a non-zero exit), or torchrun started the sweep.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return False
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun with -m would run the sweep once a process: start it with deltaw train -m")
    overrides = [_as_typed(override) for override in hydra.overrides.task]
    added = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    command = [sys.executable, "-m", "deltaw", "train", *(f"--config-dir={folder}" for folder in added)]
    command += ["--config-name", str(hydra.job.config_name), *overrides]
    environment = {name: value for name, value in os.environ.items() if not _DISTRIBUTED.fullmatch(name)}
    if suffix := _suffix(overrides, _swept_keys(json.loads(os.environ[ARGUMENTS]))):
        command.append(f"run.suffix='{suffix}'")
    print(f"sweep job {hydra.job.num}: {' '.join(overrides)}", flush=True)
    if code := _wait(subprocess.Popen(command, env=environment, cwd=hydra.runtime.cwd)):
        raise UserError(f"sweep job {hydra.job.num} ({' '.join(overrides)}) ended with exit code {code}")
    return True


def _as_typed(override: str) -> str:
    """An override as a user types it: Hydra has put backslashes into a text, as in `run.dir=runs/$\\{run.name\\}`."""
    value = OverridesParser.create().parse_override(override).value()
    return f"{override.partition('=')[0]}={value}" if "\\" in override and isinstance(value, str) else override


def _wait(job: subprocess.Popen[bytes]) -> int:
    """The exit code of a job. SIGTERM and SIGINT go to the job first; when it has ended, the sweep ends as well."""
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
    """The keys to which a command line gives several values."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    return {override.key_or_group for override in parsed if override.is_sweep_override()}


def _suffix(overrides: list[str], swept: set[str]) -> str:
    """End of a run's name from the overrides that differ between jobs, as `-optim.warmup-0.1`."""
    plain = [override.lstrip("+") for override in overrides]
    parts = [override for override in plain if override.partition("=")[0] in swept - _IN_THE_NAME]
    return "".join("-" + re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-") for part in parts)
