"""One training job: base, arms and data from the config; then Lightning fits, and the run directory fills."""

import hashlib
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

import deltaw
from deltaw.bundled.pretrain import Recipe, ensure
from deltaw.config.limits import check
from deltaw.config.schema import NF4
from deltaw.data.corpus import Corpus
from deltaw.data.pairs import Examples, FromStep, StepBatches, held_out
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.model.four_bits import check_dequantising
from deltaw.model.loading import Base, load_base, load_tokenizer
from deltaw.model.names import is_conv1d, widths
from deltaw.model.split import SplitLinear
from deltaw.plan.forecast import engine_of
from deltaw.run.weights import find_weight
from deltaw.run.writer import RunWriter
from deltaw.training.build import arms_of, corpus_of, label_count, prepared
from deltaw.training.callbacks.keep_inputs import KeepInputs
from deltaw.training.callbacks.open_run import OpenRun
from deltaw.training.callbacks.record_losses import RecordLosses
from deltaw.training.callbacks.self_checks import SelfChecks
from deltaw.training.callbacks.snapshots import Snapshots
from deltaw.training.callbacks.stop_signals import StopSignals
from deltaw.training.engines import strategy_of
from deltaw.training.launching import Launch, end_with_parent, launch_of, lost, told
from deltaw.training.task import LoraArms

say = rank_zero_only(partial(print, flush=True))

logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
# Batches are a function of their number, so ours go on exactly where they stopped; making one takes no time.
warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
warnings.filterwarnings("ignore", ".*does not have many workers")
warnings.filterwarnings("ignore", ".*treespec, LeafSpec.* is deprecated")


def train(cfg: DictConfig) -> None:
    """Train the run that `cfg` describes, from its last checkpoint where there is one."""
    arms = arms_of(cfg)
    check(cfg)
    cfg.run.name = cfg.run.name or default_name(cfg, arms)
    launch = launch_of(cfg.trainer)
    engine, rows = settled(cfg, arms, launch)
    if cfg.dry_run:
        say(told(cfg, launch))
        return
    end_with_parent()
    writer = RunWriter(Path(cfg.run.dir), cfg)
    step = writer.resume_from()
    if step == cfg.trainer.max_steps:
        say(f"{writer.path} is finished: python analyze.py run={writer.path}")
        return

    if cfg.model.pretrain:
        ensure(Path(cfg.model.path), Recipe(**cfg.model.pretrain))
    say(f"loading the base {cfg.model.path}")
    tokenizer = load_tokenizer(cfg.model.path)
    corpus = corpus_of(cfg.data, cfg.task, tokenizer)
    base, modules, task = adapted(cfg, arms, tokenizer, corpus)
    parts = held_out(len(corpus), cfg.data.validation)
    collate = task.objective.collate
    learnt, validation = (Examples(corpus, part, collate) for part in parts)
    signals = StopSignals()
    together = rows or cfg.data.batch  # rows of a forward pass without gradients
    sample = learnt.sample() if cfg.run.keep_inputs else []
    inputs = [collate(sample[start : start + together]) for start in range(0, len(sample), together)]
    trainer = lightning_trainer(
        cfg,
        launch,
        engine,
        [
            signals,  # first of all, and the losses before the checkpoint of their step
            OpenRun(writer, step, engine, run_record(cfg, base, arms, modules, corpus)),
            SelfChecks(cfg.snapshots.every),  # before a forward pass gathers weights, and a checkpoint is written
            *([KeepInputs(writer, inputs)] if inputs else []),
            RecordLosses(writer, validation.batches(together), **cfg.metrics),
            Snapshots(writer, signals, cfg.snapshots.every, base.path),
            TQDMProgressBar(),
        ],
    )
    if cfg.model.dtype == NF4:
        check_dequantising(base.model, trainer.strategy.root_device)
    rows = micro_batch(cfg.data.batch, rows, trainer.world_size)
    ranks = (trainer.global_rank, trainer.world_size)
    batches = StepBatches(learnt, arms, cfg.data.batch, rows, cfg.trainer.max_steps, *ranks, cfg.data.packing)
    trainer.accumulate_grad_batches = batches.accumulate
    position = FromStep((step or 0) * batches.accumulate, len(batches))

    say(
        f"{writer.path}: {len(arms)} arms on {len(modules)} sites of {base.name} "
        f"({base.model.num_parameters() / 1e6:.1f} M parameters with the arms), {len(learnt)} examples to learn, "
        f"{len(validation)} held out, {corpus.shortened} shortened to {cfg.data.max_length} tokens, {corpus.dropped} "
        f"dropped for want of a completion, {batches.padding():.1%} padding; "
        f"{f'resumed after step {step}' if step else 'from the start'}"
    )
    fit(trainer, task, DataLoader(batches, batch_size=None, sampler=position), writer.checkpoint if step else None)
    if signals.caught and trainer.global_step < cfg.trainer.max_steps:
        say(f"stopped after step {trainer.global_step}: the same command goes on from {writer.checkpoint}")
        if trainer.is_global_zero or launch.by != "lightning":  # whose launcher kills the first where another fails
            sys.exit(128 + signals.caught)
        return
    say(f"{writer.path} is finished: python analyze.py run={writer.path}")


def settled(cfg: DictConfig, arms: list[Arm], launch: Launch) -> tuple[str, int | None]:
    """The engine of the run, and the rows of an arm in a micro-batch if they are given or follow from it; says why.

    Raises:
        UserError: the engine is for one process, and there are several.
    """
    engine, rows, reason = cfg.engine, cfg.data.micro_batch, "as asked"
    if engine == "auto" and launch.world == 1:
        engine, reason = "single", "there is one process"
    elif engine == "auto":
        engine, rows, reason = engine_of(cfg, arms, launch.local, launch.nodes)
    if engine == "single" and launch.world > 1:
        raise UserError(f"engine=single is for one process, and there are {launch.world}: give ddp, fsdp or one device")
    say(f"engine={engine}: {reason}")
    return engine, rows


def fit(trainer: Trainer, task: LoraArms, batches: DataLoader[Any], checkpoint: Path | None) -> None:
    """Train from `checkpoint`, or from the start.

    Raises:
        UserError: a process that Lightning started has ended, and this one cannot go on without.
    """
    trainer.precision_plugin.convert_module(task)  # Lightning would read a checkpoint before this, in float32
    try:
        trainer.fit(task, batches, ckpt_path=checkpoint, weights_only=True)
    except RuntimeError as error:  # as a collective raises whose other end is gone
        if ended := lost(trainer):
            raise UserError(
                f"{ended}, so that process {trainer.global_rank} could not go on: what it printed is above; the same "
                "command goes on from the last snapshot"
            ) from error
        raise


def adapted(
    cfg: DictConfig, arms: list[Arm], tokenizer: PreTrainedTokenizerBase, corpus: Corpus
) -> tuple[Base, dict[str, str], LoraArms]:
    """The base, the projection of each of its adapted modules by the module's name, and the task with every arm on it.

    Raises:
        UserError: the base is none for the task or for packing, or has not the projections asked for.
    """
    labels = label_count(cfg.model.labels, corpus.labels) if cfg.task == "classification" else None
    base = load_base(cfg.model.path, tokenizer, cfg.model.dtype, cfg.model.gradient_checkpointing, cfg.task, labels)
    return base, *equipped(cfg, arms, base)


def equipped(cfg: DictConfig, arms: list[Arm], base: Base) -> tuple[dict[str, str], LoraArms]:
    """The projection of each adapted module of `base` by the module's name, and the task with every arm on it.

    Raises:
        UserError: the base is none for packing, or has not the projections asked for.
    """
    modules, objective = prepared(cfg, base)
    optim = {str(key): value for key, value in cfg.optim.items() if key != "lr"}  # which is each arm's own
    return modules, LoraArms(base.model, list(modules), arms, base.heads, objective, **optim)


def lightning_trainer(cfg: DictConfig, launch: Launch, engine: str, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer, with what is ours switched off there: sampling, checkpoints and validation.

    Raises:
        UserError: Lightning knows no such accelerator, devices or precision, or has another number of processes.
    """
    asked: dict[str, Any] = OmegaConf.to_container(cfg.trainer)  # type: ignore[assignment]
    strategy = strategy_of(engine, timedelta(seconds=cfg.timeout))
    plugins: list[Any] = launch.environment
    if engine == "fsdp" and cfg.trainer.precision == "64-true":  # which Lightning refuses by its name alone
        asked["precision"], plugins = None, [*plugins, DoublePrecision()]
    try:
        trainer = Trainer(
            **asked | {"devices": launch.devices, "num_nodes": launch.nodes, "strategy": strategy, "plugins": plugins},
            max_epochs=1,  # one, of all micro-batches, however often that goes through the text
            callbacks=callbacks,
            logger=instantiate(cfg.logger) if cfg.logger else False,
            use_distributed_sampler=False,  # the batches of a step are the same on any number of devices
            num_sanity_val_steps=0,
            enable_checkpointing=False,  # ours hold the arms alone
            enable_model_summary=False,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer={dict(cfg.trainer)} is refused by Lightning: {error}") from error
    if trainer.world_size != launch.world:  # each process would train a run of its own, and all write to one place
        raise UserError(
            f"{launch.by} started {launch.world} processes, and Lightning knows of {trainer.world_size}: "
            "leave trainer.devices=auto"
        )
    return trainer


def default_name(cfg: DictConfig, arms: Sequence[Arm]) -> str:
    """`<model>-<data>-<arms>`, and what a sweep varies besides: what tells a run apart, and no clock time."""
    data = Path(cfg.data.path).stem if cfg.data.path else cfg.data.name
    data = f"{data}-{cfg.data.config}" if cfg.data.config else data
    told = "_".join(arm.name for arm in arms)
    if len(told) > 150:  # a file system's names end at 255 bytes
        told = f"{len(arms)}arms-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{Path(cfg.model.path).name}-{data}-{told}{cfg.run.suffix}")


def micro_batch(batch: int, micro_batch: int | None, world: int) -> int:
    """Rows of one arm in a forward pass of one process: its share of the batch, at most `micro_batch`.

    Raises:
        UserError: the global batch does not come out even.
    """
    rows = min(micro_batch or batch, max(1, batch // world))
    if batch % (rows * world):
        raise UserError(
            f"data.batch={batch} is not a multiple of {world} processes × data.micro_batch={rows}: change one of them"
        )
    return rows


def weights(base: Base, modules: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Where the frozen W of every adapted module lies, for the analysis; none where a file names one otherwise."""
    layers = {module: base.model.get_submodule(f"{module}.base") for module in modules}
    split = {name: layer.layout for name, layer in base.model.named_modules() if isinstance(layer, SplitLinear)}
    try:
        return {
            module: asdict(find_weight(base.folder, module, widths(layer)[::-1], is_conv1d(layer), split))
            for module, layer in layers.items()
        }
    except UserError as error:
        say(f"{error}; the run goes on without a record of W")
        return {}


def run_record(
    cfg: DictConfig, base: Base, arms: Sequence[Arm], modules: dict[str, str], corpus: Corpus
) -> dict[str, Any]:
    """What `run.json` tells of a run beside its config."""
    drawn = any(base.heads.values())
    seeds = {arm.name: {"head_seed": arm.head_seed} if drawn else {} for arm in arms}
    return {
        "name": cfg.run.name,
        "base": {"name": base.name, "path": base.path, "sha256": base.sha256, "dtype": cfg.model.dtype},
        "task": cfg.task,
        "arms": [{**asdict(arm), "scale": arm.scale} | seeds[arm.name] for arm in arms],
        "init": "A uniform within ±1/√d_in from sha256(arm name, module name), B zero",
        "modules": modules,
        "heads": {module: "drawn from head_seed" if draw else "the base's" for module, draw in base.heads.items()},
        "weights": weights(base, modules),
        "data": {
            "name": cfg.data.name,
            "examples": len(corpus),
            "shortened": corpus.shortened,
            "dropped": corpus.dropped,
            "labels": corpus.labels,
            "fingerprint": corpus.fingerprint,
        },
        "versions": {
            "python": platform.python_version(),
            "deltaw": deltaw.__version__,  # which may run from a checkout that is not installed
            **{name: version(name) for name in ("torch", "transformers", "peft", "pytorch-lightning")},
        },
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }
