"""Lightning's Trainer for a run: it fits, then it judges."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from deltaw.errors import UserError
from deltaw.training.engines import strategy_of
from deltaw.training.judging import Judging
from deltaw.training.launching import Launch, dead_processes
from deltaw.training.memory import keep_freed_memory
from deltaw.training.task import LoraArms

logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
# Batches are a function of their number, so ours go on exactly where they stopped; on a CPU, one takes little time.
warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
warnings.filterwarnings("ignore", ".*does not have many workers")
warnings.filterwarnings("ignore", ".*broadcast_buffers.*")
warnings.filterwarnings("ignore", ".*treespec, LeafSpec.* is deprecated")


def lightning_trainer(cfg: DictConfig, launch: Launch, engine: str, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer without its own sampling, checkpoints and validation, which the callbacks replace.

    Raises:
        UserError: Lightning does not know the accelerator, the devices or the precision, or counts other processes.
    """
    given: dict[str, Any] = OmegaConf.to_container(cfg.trainer)  # type: ignore[assignment]
    strategy = strategy_of(engine, timedelta(seconds=cfg.timeout))
    plugins: list[Any] = launch.environment
    if engine == "fsdp" and cfg.trainer.precision == "64-true":  # Lightning refuses this precision by name alone
        given["precision"], plugins = None, [*plugins, DoublePrecision()]
    try:
        trainer = Trainer(
            **given | {"devices": launch.devices, "num_nodes": launch.nodes, "strategy": strategy, "plugins": plugins},
            max_epochs=1,  # it holds all micro-batches of the run, however often these go through the data
            callbacks=callbacks,
            logger=instantiate(cfg.logger) if cfg.logger else False,
            use_distributed_sampler=False,  # the batches of a step are the same on any number of devices
            num_sanity_val_steps=0,
            enable_checkpointing=False,  # our checkpoints hold the arms alone
            enable_model_summary=False,
            enable_progress_bar=False,  # ours names its phase and the arms
            inference_mode=False,  # FSDP2 gathers weights outside of it
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer={dict(cfg.trainer)} is refused by Lightning: {error}") from error
    # Before every micro-batch it would ask all processes for a signal that `StopSignals` answers, and wait for the GPU.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    if trainer.world_size != launch.world:  # each process would train a run of its own, all in one directory
        raise UserError(
            f"{launch.by} started {launch.world} processes, and Lightning knows of {trainer.world_size}: "
            "leave trainer.devices=auto"
        )
    return trainer


def fit(trainer: Trainer, task: LoraArms, batches: DataLoader[Any], checkpoint: Path | None) -> None:
    """Train from `checkpoint`, or from the start.

    Raises:
        UserError: a process that Lightning started has ended, and this one cannot go on without it.
    """
    trainer.precision_plugin.convert_module(task)  # Lightning would read a checkpoint before this, in float32
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()  # not before all weights are as they stay
    with _dead_processes_named(trainer):
        trainer.fit(task, batches, ckpt_path=checkpoint, weights_only=True)


def judge(trainer: Trainer, judging: Judging) -> None:
    """Record what the run lacks on its judged examples, whether or not this process has trained it.

    Raises:
        UserError: as `fit` does.
    """
    with _dead_processes_named(trainer):
        trainer.test(judging, verbose=False)


@contextmanager
def _dead_processes_named(trainer: Trainer) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # a collective raises it when the process at its other end is gone
        if ended := dead_processes(trainer):
            raise UserError(
                f"{ended}, so that process {trainer.global_rank} could not go on: what it printed is above; the same "
                "command goes on from the last snapshot"
            ) from error
        raise
