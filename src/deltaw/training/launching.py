"""The processes of a run: how many there are, and who starts them (Lightning itself, torchrun or srun)."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from deltaw.errors import UserError

PR_SET_PDEATHSIG = 1  # an option of prctl in Linux

say = rank_zero_only(partial(print, flush=True))  # process 0 alone prints


@dataclass(frozen=True)
class Launch:
    """The processes of a run.

    Attributes:
        by: who starts them: lightning, torchrun or srun.
        devices: for Lightning's Trainer: a count, a list of device numbers, or text for either.
        local: number of processes on each machine.
        nodes: number of machines.
    """

    by: str
    devices: Any
    local: int
    nodes: int

    @property
    def world(self) -> int:
        """Number of processes on all machines."""
        return self.local * self.nodes

    @property
    def environment(self) -> list[ClusterEnvironment]:
        """The plugin that Lightning needs: under srun, one that leaves signals to our callback."""
        return [SLURMEnvironment(auto_requeue=False)] if self.by == "srun" else []

    def command(self, arguments: Sequence[str]) -> str:
        """The shell command that starts all processes; without srun, it runs once on each machine."""
        train = shlex.join(["deltaw", "train", *arguments])
        if self.by == "torchrun":
            several = f" --nnodes={self.nodes} --rdzv-backend=c10d --rdzv-endpoint=HOST:29400" if self.nodes > 1 else ""
            return f"torchrun --nproc-per-node={self.local}{several} -m {train}"
        if self.by == "srun":
            return f"srun --nodes={self.nodes} --ntasks-per-node={self.local} {train}"
        if self.nodes > 1:
            return f"MASTER_ADDR=HOST MASTER_PORT=29400 NODE_RANK=0..{self.nodes - 1} {train}"
        return train


def launch_of(trainer: DictConfig) -> Launch:
    """The processes that torchrun or srun has started, or else those that `cfg.trainer` asks for.

    Raises:
        UserError: torchrun or srun has started other processes than `cfg.trainer` asks for.
    """
    if (started := _started()) is None:
        local = trainer.devices if isinstance(trainer.devices, int) and trainer.devices > 0 else _devices_here(trainer)
        return Launch("lightning", trainer.devices, local, trainer.num_nodes)
    if trainer.devices == "auto":
        return started
    requested = Launch(started.by, trainer.devices, _devices_here(trainer), trainer.num_nodes)
    if (requested.local, requested.nodes) != (started.local, started.nodes):
        raise UserError(
            f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes} ask for {requested.world} "
            f"processes, and {started.by} started {started.world} ({started.local} on each of {started.nodes} "
            "machines): leave trainer.devices=auto, or start as many"
        )
    return requested


def _started() -> Launch | None:
    """The processes that torchrun or srun has started, this one among them; None for any other start."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", local, local, int(os.environ["WORLD_SIZE"]) // local)
    if SLURMEnvironment.detect():
        tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NNODES"])
        local, left = divmod(tasks, nodes)
        if left or (tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ):
            raise UserError(
                f"SLURM has {tasks} tasks on {nodes} machines, and nothing says how many on each: give "
                "--ntasks-per-node in place of --ntasks, and start with srun"
            )
        return Launch("srun", local, local, nodes)
    return None


def _devices_here(trainer: DictConfig) -> int:
    """The number of devices on this machine that Lightning would use under these settings."""
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


def launch_description(cfg: DictConfig, launch: Launch) -> str:
    """The output of `dry_run=true`: the config, the command, and the processes of each machine."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("dry_run=")]
    rows = [
        f"machine {node}: processes {node * launch.local} to {(node + 1) * launch.local - 1}, a device each"
        for node in range(launch.nodes)
    ]
    return "\n".join([OmegaConf.to_yaml(cfg, resolve=True), launch.command(arguments), *rows])


def dead_processes(trainer: Trainer) -> str:
    """The processes started by Lightning that have ended with an error, in words; "" if there are none."""
    processes: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    until = time.monotonic() + 1  # a connection may break before the process at its other end is gone
    while processes and not any(process.poll() for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
    ended = [(rank, process.poll()) for rank, process in enumerate(processes, start=1)]
    return " and ".join(f"process {rank} ended {_cause(code)}" for rank, code in ended if code)


def _cause(code: int) -> str:
    return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"


def end_with_parent() -> None:
    """If Lightning started this process, let the system kill it when its parent dies.

    Otherwise it would wait for its dead parent in the next collective, until the timeout.
    """
    if _started() is None and int(os.environ.get("LOCAL_RANK", 0)) > 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
