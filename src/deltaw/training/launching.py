"""Who starts the processes of a run (Lightning itself, torchrun or srun), and how many there are."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from deltaw.errors import UserError

PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Launch:
    """The processes of a run.

    Attributes:
        by: who starts them: lightning, torchrun or srun.
        devices: as Lightning's Trainer takes them: a number, a list of their numbers, or text for either.
        local: processes on each machine.
        nodes: machines.
    """

    by: str
    devices: Any
    local: int
    nodes: int

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.local * self.nodes

    @property
    def environment(self) -> list[ClusterEnvironment]:
        """Lightning's plugin for it, where that has to be told: a requeued job's signals are answered by us alone."""
        return [SLURMEnvironment(auto_requeue=False)] if self.by == "srun" else []

    def command(self, arguments: Sequence[str]) -> str:
        """The line that starts them all: once, or with Lightning on several machines or with torchrun, once on each."""
        script = shlex.join(arguments)
        if self.by == "torchrun":
            several = f" --nnodes={self.nodes} --rdzv-backend=c10d --rdzv-endpoint=HOST:29400" if self.nodes > 1 else ""
            return f"torchrun --nproc-per-node={self.local}{several} {script}"
        if self.by == "srun":
            return f"srun --nodes={self.nodes} --ntasks-per-node={self.local} python {script}"
        if self.nodes > 1:
            return f"MASTER_ADDR=HOST MASTER_PORT=29400 NODE_RANK=0..{self.nodes - 1} python {script}"
        return f"python {script}"


def launch_of(trainer: DictConfig) -> Launch:
    """How many processes there are, as asked by `trainer` or as they have been started.

    Raises:
        UserError: both tell, and not the same.
    """
    if (started := _started()) is None:
        local = trainer.devices if isinstance(trainer.devices, int) and trainer.devices > 0 else _found(trainer)
        return Launch("lightning", trainer.devices, local, trainer.num_nodes)
    if trainer.devices == "auto":
        return started
    asked = Launch(started.by, trainer.devices, _found(trainer), trainer.num_nodes)
    if (asked.local, asked.nodes) != (started.local, started.nodes):
        raise UserError(
            f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes} ask for {asked.world} "
            f"processes, and {started.by} started {started.world} ({started.local} on each of {started.nodes} "
            "machines): leave trainer.devices=auto, or start as many"
        )
    return asked


def _started() -> Launch | None:
    """The processes among which this one was started by torchrun or srun."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", local, local, int(os.environ["WORLD_SIZE"]) // local)
    if SLURMEnvironment.detect():
        tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NNODES"])
        local, left = divmod(tasks, nodes)
        if left or (tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ):
            raise UserError(
                f"SLURM has {tasks} tasks on {nodes} machines, and was not told how many on each: give "
                "--ntasks-per-node in place of --ntasks, and start with srun"
            )
        return Launch("srun", local, local, nodes)
    return None


def _found(trainer: DictConfig) -> int:
    """How many devices Lightning makes of the setting on this machine."""
    devices = OmegaConf.to_container(trainer)["devices"]  # type: ignore[index, call-overload]
    try:
        count: int = Trainer(
            accelerator=trainer.accelerator,
            devices=devices,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).num_devices
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(
            f"trainer.accelerator={trainer.accelerator} with trainer.devices={devices} is refused by Lightning: {error}"
        ) from error
    return count


def told(cfg: DictConfig, launch: Launch) -> str:
    """What `dry_run=true` prints: the config, the command, and which machine has which processes."""
    arguments = [
        Path(sys.argv[0]).name,
        *(argument for argument in sys.argv[1:] if not argument.startswith("dry_run=")),
    ]
    rows = [
        f"machine {node}: processes {node * launch.local} to {(node + 1) * launch.local - 1}, a device each"
        for node in range(launch.nodes)
    ]
    return "\n".join([OmegaConf.to_yaml(cfg, resolve=True), launch.command(arguments), *rows])


def lost(trainer: Trainer) -> str:
    """Which of the processes that Lightning's launcher started have ended badly, in words; "" for none."""
    processes: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    until = time.monotonic() + 1  # a broken connection is noticed before the end of who broke it
    while processes and not any(process.poll() for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
    ended = [(rank, process.poll()) for rank, process in enumerate(processes, start=1)]
    told = [f"process {rank} ended {_how(code)}" for rank, code in ended if code]
    return " and ".join(told)


def _how(code: int) -> str:
    return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"


def end_with_parent() -> None:
    """Let the system end this process when the one that started it dies, if that was Lightning's launcher.

    A process whose peer is gone waits in the next collective until the timeout.
    """
    if _started() is None and int(os.environ.get("LOCAL_RANK", 0)) > 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
