"""The command `train`: load what the config names, let Lightning fit it, and fill the run directory."""

import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from torch.utils.data import DataLoader

from deltaw.bundled.pretrain import Recipe, ensure
from deltaw.commands.checks import check_corpus, check_inputs
from deltaw.commands.engine import EngineChoice, choose_engine
from deltaw.config.limits import check
from deltaw.config.schema import NF4
from deltaw.data.batches import Examples, FromStep, StepBatches
from deltaw.data.corpus import Corpus
from deltaw.data.held_out import Split, held_out
from deltaw.data.workers import BatchesAhead
from deltaw.lora.arm import Arm
from deltaw.model.four_bits import check_dequantising
from deltaw.model.loading import Base, load_tokenizer
from deltaw.model.names import block_of
from deltaw.model.projections import layers_beside
from deltaw.run.name import default_name
from deltaw.run.writer import RunWriter
from deltaw.training.batches import micro_batch, step_batches
from deltaw.training.build import arms_of, base_of, corpus_of
from deltaw.training.callbacks.open_run import OpenRun
from deltaw.training.callbacks.progress import Progress
from deltaw.training.callbacks.record_losses import RecordLosses
from deltaw.training.callbacks.self_checks import SelfChecks
from deltaw.training.callbacks.snapshots import Snapshots
from deltaw.training.callbacks.stop_signals import StopSignals
from deltaw.training.judging import Judging, unjudged
from deltaw.training.launching import Launch, end_with_parent, launch_description, launch_of, say
from deltaw.training.run_record import record_of
from deltaw.training.task import LoraArms, task_with_arms
from deltaw.training.trainer import fit, judge, lightning_trainer

# Beside a GPU. Each makes over a million tokens a second, and a GPU learns from as many with the smallest bases alone.
# On a CPU they would take time from the training, where making a batch takes less than a hundredth of a step.
WORKERS = 2

NONE_JUDGED = "no example set aside to judge by (give data.judged, and more data if they are few)"


@dataclass(frozen=True)
class Loaded:
    """What a run trains, and on what.

    Attributes:
        arms: in the order of the config.
        corpus: the data set, tokenised.
        split: which of its examples are learnt, and which are held out.
        base: the frozen model, with the arms attached.
        modules: the projection of each adapted module, by the module's name.
        layers: number of the base's layers; in a hybrid model some have no attention, and so no arms.
        task: trains the arms.
        learnt: the examples to learn.
        validation: the examples that are held out to validate on.
        judged: the examples that are set aside to judge by.
    """

    arms: list[Arm]
    corpus: Corpus
    split: Split
    base: Base
    modules: dict[str, str]
    layers: int
    task: LoraArms
    learnt: Examples
    validation: Examples
    judged: Examples


def train(cfg: DictConfig) -> None:
    """Train the run that `cfg` describes, from its last checkpoint if there is one.

    Raises:
        UserError: a setting, the base, the data or the run directory cannot be used, or a process has died.
        SystemExit: SIGTERM or SIGINT stopped the run before its last step.
    """
    arms = named_arms(cfg)
    launch = launch_of(cfg.trainer)
    writer = RunWriter(Path(cfg.run.dir), cfg)
    step = writer.resume_from()
    trained = step == cfg.trainer.max_steps
    if trained and not cfg.dry_run and not unjudged(writer.run, cfg):
        say_finished(writer)
        return
    writer.check_writable()
    shape = check_inputs(cfg, arms)
    engine = choose_engine(cfg, arms, launch)
    micro_batch(cfg.data.batch, engine.rows, launch.world)
    say(f"engine={engine.name}: {engine.reason}")
    if cfg.dry_run:
        say(launch_description(cfg, launch))
        return
    end_with_parent()
    loaded = load(cfg, arms, shape)
    signals = StopSignals(timedelta(seconds=cfg.timeout))
    trainer = build_trainer(cfg, launch, engine, loaded, callbacks(cfg, engine, loaded, writer, step, signals))
    if not trained:
        batches = step_batches(cfg, arms, loaded.learnt, engine.rows, loaded.task.objective.packs, trainer)
        say(summary(cfg, loaded, batches, writer, step))
        on_gpu = trainer.strategy.root_device.type == "cuda"
        ahead = loader(batches, step, WORKERS if on_gpu else 0, on_gpu)
        fit(trainer, loaded.task, ahead, writer.checkpoint if step else None)
        if signals.caught and (trainer.global_step < trainer.max_steps or len(loaded.judged)):
            end_stopped(trainer, writer, launch, signals.caught)
    if len(loaded.judged):
        judge(trainer, Judging(loaded.task, writer, loaded.judged, len(arms) * rows_per_forward(cfg, engine)))
    say_finished(writer)


def named_arms(cfg: DictConfig) -> list[Arm]:
    """The arms of the run; without a name in the config, the run gets one from them.

    Raises:
        UserError: no run can have these settings.
    """
    arms = arms_of(cfg)
    check(cfg)
    cfg.run.name = cfg.run.name or default_name(cfg, [arm.name for arm in arms])
    return arms


def load(cfg: DictConfig, arms: list[Arm], shape: Base) -> Loaded:
    """Pretrain the base if the config says so, load it and the data, and attach the arms.

    Args:
        cfg: the config of the run.
        arms: what to train.
        shape: the base on the meta device.

    Raises:
        UserError: the data or the base cannot be used for the task.
    """
    if cfg.model.pretrain:
        ensure(Path(cfg.model.path), Recipe(**cfg.model.pretrain))
    say(f"loading the base {cfg.model.path}")
    tokenizer = load_tokenizer(cfg.model.path)
    corpus = corpus_of(cfg.data, cfg.task, tokenizer)
    split = held_out(corpus, cfg.data.validation, cfg.data.judged)
    check_corpus(corpus, shape, tokenizer.convert_ids_to_tokens, arms)
    base = base_of(cfg, tokenizer, corpus)
    modules, task = task_with_arms(cfg, arms, base)
    examples = partial(Examples, corpus, collate=task.objective.collate)
    layers = len(layers_beside(shape.model, modules))
    parts = map(examples, split[:3])
    return Loaded(arms, corpus, split, base, modules, layers, task, *parts)


def callbacks(
    cfg: DictConfig, engine: EngineChoice, loaded: Loaded, writer: RunWriter, step: int | None, signals: StopSignals
) -> list[Callback]:
    """The callbacks in the order of their calls: everything up to a step is recorded before its checkpoint."""
    validation = loaded.validation.batches(rows_per_forward(cfg, engine))
    record = record_of(cfg, loaded.base, loaded.task.learners, loaded.modules, loaded.corpus, loaded.split)
    return [
        signals,  # first, because it takes over from Lightning's own handlers
        OpenRun(writer, step, engine.name, record),
        SelfChecks(cfg.snapshots.every),  # before a forward pass gathers weights, and before a checkpoint is written
        RecordLosses(writer, signals, validation, loaded.corpus.groups, **cfg.metrics),
        Snapshots(writer, signals, cfg.snapshots.every, loaded.base.path),
        Progress(cfg.metrics.every),
    ]


def rows_per_forward(cfg: DictConfig, engine: EngineChoice) -> int:
    """Rows of one arm in a forward pass on held-out examples, which needs less memory than training on as many."""
    return engine.rows or int(cfg.data.batch)


def build_trainer(
    cfg: DictConfig, launch: Launch, engine: EngineChoice, loaded: Loaded, around_steps: list[Callback]
) -> Trainer:
    """Lightning's Trainer, on devices that can compute with the base.

    Raises:
        UserError: Lightning refuses the settings, or the device cannot compute with a base in 4 bits.
    """
    trainer = lightning_trainer(cfg, launch, engine.name, around_steps)
    if cfg.model.dtype == NF4:
        check_dequantising(loaded.base.model, trainer.strategy.root_device)
    return trainer


def loader(batches: StepBatches, step: int | None, workers: int, pinned: bool) -> DataLoader[Any]:
    """The micro-batches in their order, from the first one after `step`.

    Args:
        batches: those of the run.
        step: the last step that was taken; None for none.
        workers: processes that make batches ahead; 0 to make each when it is due.
        pinned: whether batches lie where a GPU reads them while it computes.
    """
    first = FromStep((step or 0) * batches.accumulate, len(batches))
    return BatchesAhead(
        batches,
        batch_size=None,
        sampler=first,
        num_workers=workers,
        pin_memory=pinned,
        multiprocessing_context="fork" if workers else None,  # another process would import everything anew
    )


def summary(cfg: DictConfig, loaded: Loaded, batches: StepBatches, writer: RunWriter, step: int | None) -> str:
    """One line on what is about to be trained."""
    base, corpus = loaded.base, loaded.corpus
    adapted = len(set(map(block_of, loaded.modules)))
    return (
        f"{writer.path}: {len(loaded.arms)} arms on {len(loaded.modules)} sites "
        f"{f'in {adapted} of {loaded.layers} layers ' if adapted < loaded.layers else ''}of {base.name} "
        f"({base.model.num_parameters() / 1e6:.1f} M parameters with the arms), "
        f"{len(loaded.learnt)} examples to learn, {len(loaded.validation)} held out for validation, "
        f"{f'{len(loaded.judged)} set aside to judge by' if len(loaded.judged) else NONE_JUDGED}, "
        f"{f'{loaded.split.left_out} left out with their group, ' if loaded.split.left_out else ''}"
        f"{f'{corpus.rows} rows read, as chats are learned turn by turn, ' if corpus.rows < len(corpus) else ''}"
        f"{corpus.shortened} shortened to {cfg.data.max_length} tokens, {corpus.dropped} dropped for want of a "
        f"completion, {batches.padding():.1%} padding; "
        f"{f'resumed after step {step}' if step else 'from the start'}"
    )


def end_stopped(trainer: Trainer, writer: RunWriter, launch: Launch, number: int) -> NoReturn:
    """After the signal of this number, say how far the run has come, and exit with the code that a shell expects."""
    begun = writer.checkpoint.exists()
    way_on = f"goes on from {writer.checkpoint}" if begun else "begins anew"
    say(f"stopped after step {trainer.global_step}: the same command {way_on}")
    others_of_lightning = launch.by == "lightning" and not trainer.is_global_zero
    sys.exit(0 if others_of_lightning else 128 + number)  # Lightning kills process 0 when another process fails


def say_finished(writer: RunWriter) -> None:
    say(f"{writer.path} is finished: deltaw analyze run={writer.path}")
