"""Bases with random weights made where they are needed, the runs that train on them, and what the device can do."""

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from transformers import LlamaConfig, LlamaForCausalLM

from deltaw.commands.train import WORKERS, loader
from deltaw.config.schema import register
from deltaw.data.batches import Examples, StepBatches
from deltaw.data.corpus import Corpus
from deltaw.data.example import Example
from deltaw.model.loading import Base
from deltaw.run.record import BaseRecord, RunRecord
from deltaw.run.writer import RunWriter
from deltaw.training.build import arms_of
from deltaw.training.callbacks.open_run import OpenRun
from deltaw.training.callbacks.progress import Progress
from deltaw.training.callbacks.record_losses import RecordLosses
from deltaw.training.callbacks.self_checks import SelfChecks
from deltaw.training.callbacks.stop_signals import StopSignals
from deltaw.training.launching import launch_of
from deltaw.training.task import LoraArms, task_with_arms
from deltaw.training.trainer import fit, lightning_trainer
from gpu_parts.sizes import Shape, Sizes

ROOT = Path(__file__).resolve().parents[2]


def config_of(*settings: str) -> DictConfig:
    """The config that `train.py` would have."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(settings))


@contextmanager
def run_on(sizes: Sizes, shape: Shape, tokens: int, *settings: str) -> Iterator[DictConfig]:
    """The config of a run on a base of which there is only `config.json`, with rows of `tokens` tokens."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": "llama", **shape}))
        yield config_of(
            *("model=hub", f"model.path={folder}", "model.dtype=bfloat16", "trainer.precision=bf16-mixed"),
            f"trainer.accelerator={sizes.device}",
            *("trainer.devices=1", f"data.max_length={tokens}", f"run.dir={folder}/run"),
            *settings,
        )


def random_llama(shape: Shape, device: str, checkpointing: bool = False) -> LlamaForCausalLM:
    """A model with random weights in bfloat16, made on its device: reading 16 GB would take longer than measuring."""
    torch.manual_seed(0)
    with torch.device(device):
        model: LlamaForCausalLM = LlamaForCausalLM._from_config(LlamaConfig(**shape), dtype=torch.bfloat16)
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def random_base(shape: Shape, device: str, checkpointing: bool = False) -> Base:
    """The same, as a run holds it."""
    return Base("random", "random", Path(), "", random_llama(shape, device, checkpointing), 0, {})


class RandomText:
    """A corpus of random tokens, all of them learnt, in rows of one length.

    Args:
        vocabulary: of the tokens.
        tokens: of a row.
    """

    joined, labels = True, ()

    def __init__(self, vocabulary: int, tokens: int, rows: int = 64):
        draw = np.random.default_rng(0).integers(vocabulary, size=(rows, tokens))
        self.rows: list[list[int]] = draw.tolist()
        self.vocabulary, self.max_length = vocabulary, tokens

    def lengths(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.tile([1, self.max_length - 1, self.max_length - 1], (len(chosen), 1))

    def __getitem__(self, number: int) -> Example:
        first, *rest = self.rows[number]
        return Example([first], rest, rest)


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def free(device: str) -> None:
    """Give back the memory of what nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def product_flops(sizes: Sizes) -> float:
    """FLOPs a second of a square product in bfloat16."""
    width = sizes.product
    one, other = (torch.randn(width, width, device=sizes.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = _seconds(lambda: one @ other, sizes.device)
    return 2 * width**3 / seconds


def _seconds(work: Callable[[], object], device: str, times: int = 10) -> float:
    for _ in range(3):
        work()
    synchronise(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return (time.perf_counter() - started) / times


class Clock:
    """Seconds of a step and peak memory, of the steps behind the warm-up.

    Args:
        sizes: how many of either there are.

    Attributes:
        seconds: of a step.
        peak_gib: most memory that was allocated; None on a CPU.
    """

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        self.seconds = float("nan")
        self.peak_gib: float | None = None
        self._started = 0.0

    def step_ended(self, step: int) -> None:
        """To be told of each optimiser step as it ends, from 1."""
        if step == self.sizes.warmup:
            synchronise(self.sizes.device)
            if self.sizes.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            self._started = time.perf_counter()
        if step == self.sizes.warmup + self.sizes.steps:
            synchronise(self.sizes.device)
            self.seconds = (time.perf_counter() - self._started) / self.sizes.steps
            if self.sizes.device == "cuda":
                self.peak_gib = torch.cuda.max_memory_allocated() / 2**30


class Watch(Callback):
    """Tell someone of each step of Lightning's training as it ends.

    Args:
        step_ended: called with its number, from 1.
    """

    def __init__(self, step_ended: Callable[[int], None]):
        self.step_ended = step_ended

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.step_ended(trainer.global_step)


def train_arms(cfg: DictConfig, base: Base, step_ended: Callable[[int], None]) -> LoraArms:
    """Train as `train.py` does, on random tokens, without snapshots; returns the task with its trained arms."""
    arms, rows = arms_of(cfg), cfg.data.batch
    _, task = task_with_arms(cfg, arms, base)
    text = RandomText(base.model.config.vocab_size, cfg.data.max_length)
    examples = Examples(cast(Corpus, text), np.arange(len(text.rows)), task.objective.collate)
    # Validation there has to be. A batch like those learnt is no new shape, for which layers would be compiled again.
    held_out = np.arange(rows), task.objective.collate([text[number] for number in range(rows)])
    writer = RunWriter(Path(cfg.run.dir), cfg)
    record = RunRecord(base=BaseRecord(name=base.name, sha256=base.sha256), arms=[])
    signals = StopSignals()
    trainer = lightning_trainer(
        cfg,
        launch_of(cfg.trainer),
        "single",
        [
            signals,
            OpenRun(writer, None, "single", record),
            SelfChecks(cfg.snapshots.every),
            Watch(step_ended),  # before the validation that is behind the last step
            RecordLosses(writer, signals, [held_out], np.zeros(rows, np.int64), **cfg.metrics),
            Progress(cfg.metrics.every),
        ],
    )
    batches = StepBatches(examples, arms, rows, rows, cfg.trainer.max_steps, 0, 1, shadows=cfg.arms.shadows)
    task.cpu = lambda: task  # type: ignore[method-assign]  # Lightning's last act: 16 GB would take longer than a step
    on_gpu = trainer.strategy.root_device.type == "cuda"
    fit(trainer, task, loader(batches, None, WORKERS if on_gpu else 0, on_gpu), None)
    return task
