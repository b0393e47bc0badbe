"""What the arms reach on the judged examples at the end of a run: the base, each arm, and the largest arms cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from pytorch_lightning import LightningModule

from deltaw.data.batches import Examples
from deltaw.lora.variants import Variant, in_place_of_arms, variant_of
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import JUDGED
from deltaw.run.writer import RunWriter
from deltaw.training.engines import shard
from deltaw.training.launching import say
from deltaw.training.task import LoraArms
from deltaw.training.validation import measure

MOST = 8  # variants side by side: more hold more factors, and lose more work to a stop


@dataclass(frozen=True)
class Judged:
    """One of the variants to judge.

    Attributes:
        arms: names of the arms that it stands for; several for the base, where no arm has a head of its own.
        step: optimiser steps that the arms have taken; at step 0 they are the base.
        cut: the rank that every site is cut to; None for an uncut arm.
        dropped: the sites without ΔW, as in `COLUMNS_OF_EVALUATION`.
    """

    arms: tuple[str, ...]
    step: int
    cut: int | None = None
    dropped: str = ""


def unjudged(run: RunDirectory, cfg: DictConfig) -> list[Judged]:
    """What a finished run lacks among the variants that the config asks for.

    The base and each arm but shadows, uncut; the arms of the largest rank, at the settings that validate best, cut to
    each rank of `truncate` below their own; with `truncate_sites`, the best of these arms without the sites of each
    part (see `parts_of`). An arm whose loss has diverged is neither cut nor dropped in part.
    """
    if not run.record.data.get("judged"):
        return []
    table = run.evaluation()
    done = table[table.split == JUDGED].drop_duplicates(["arm", "step", "cut", "dropped"])
    cuts = [None if k is pd.NA else k for k in done.cut]
    there = {*zip(done.arm, done.step, cuts, done.dropped, strict=True)}
    return [
        Judged(lacking, one.step, one.cut, one.dropped)
        for one in _wanted(run, cfg)
        if (lacking := tuple(arm for arm in one.arms if (arm, one.step, one.cut, one.dropped) not in there))
    ]


def _wanted(run: RunDirectory, cfg: DictConfig) -> Iterator[Judged]:
    names = [name for name, arm in run.arms.items() if not arm.get("shadow")]
    for arms in [(name,) for name in names] if run.record.heads else [tuple(names)]:
        yield Judged(arms, step=0)
    last = cfg.trainer.max_steps
    for name in names:
        yield Judged((name,), last)
    ranks = [arm["rank"] for arm in run.arms.values() if arm["control"] is None]
    losses = run.validation().end
    largest = {arm["name"]: losses.get(arm["name"], inf) for arm in run.recipe(max(ranks, default=0))}
    converged = {name: loss for name, loss in largest.items() if isfinite(loss)}
    for k in sorted({*cfg.truncate}, reverse=True):
        for name in converged:
            if k < run.arms[name]["rank"]:
                yield Judged((name,), last, cut=k)
    if cfg.truncate_sites and converged:
        best = min(converged, key=converged.__getitem__)
        for part in parts_of(run, best):
            yield Judged((best,), last, dropped=part)


def parts_of(run: RunDirectory, arm: str) -> dict[str, list[str]]:
    """Modules of an arm by part: each site, each projection if there are several, each third of at least 3 layers.

    A part is called as in `COLUMNS_OF_EVALUATION`.
    """
    sites = list(run.adapter(arm).sites)
    parts = {str(site): [site.module] for site in sites}
    if len(projections := {site.projection for site in sites}) > 1:
        parts |= {one: [site.module for site in sites if site.projection == one] for one in sorted(projections)}
    if len(layers := sorted({site.layer for site in sites})) >= 3:
        for third in np.array_split(layers, 3):
            inside = [site.module for site in sites if third[0] <= site.layer <= third[-1]]
            name = f"layer {third[0]}" if len(third) == 1 else f"layers {third[0]} to {third[-1]}"
            parts[name] = inside
    return parts


class Judging(LightningModule):
    """Measure what `unjudged` names, group by group: a test step measures a group and records it.

    All of it comes from the snapshots, so it does not matter whether this process has trained the arms.

    Args:
        task: the arms on their base.
        writer: the run directory.
        examples: those to judge by.
        rows: of all arms together in a forward pass at most.
    """

    def __init__(self, task: LoraArms, writer: RunWriter, examples: Examples, rows: int):
        super().__init__()
        self.task, self.writer, self.examples, self.rows = task, writer, examples, rows
        self.groups: list[list[Judged]] = []

    def setup(self, stage: str) -> None:
        """Process 0 decides, once it has locked the directory."""
        wanted = unjudged(self.writer.run, self.writer.config) if self.trainer.is_global_zero else []
        wanted = self.trainer.strategy.broadcast(wanted)
        size = min(MOST, self.rows)
        self.groups = [wanted[at : at + size] for at in range(0, len(wanted), size)]
        say(f"judging: {len(wanted)} variants on {len(self.examples)} examples")

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # the engine shards
            shard(self.task.base, self.task.modules_adapted, self.device_mesh["data_parallel"])

    def test_dataloader(self) -> Sequence[int]:
        return range(len(self.groups))

    def test_step(self, number: int, batch_idx: int) -> None:
        group = self.groups[number]
        batches = self.examples.batches(self.rows // len(group))
        with in_place_of_arms(self.task.base, [self._variant(one) for one in group]):
            title = f"judging, {number + 1} of {len(self.groups)}"
            measured = measure(self.trainer, self.task, len(group), batches, title)
        if self.trainer.is_global_zero:
            rows: list[tuple[int, dict[str, Any]]] = [
                (k, {"arm": arm, "step": one.step, "cut": one.cut, "dropped": one.dropped})
                for k, one in enumerate(group)
                for arm in one.arms
            ]
            self.writer.append_evaluation(measured.table(JUDGED, self.examples.corpus.groups, rows))

    def _variant(self, judged: Judged) -> Variant:
        run, modules = self.writer.run, self.task.modules_adapted
        (arm,) = [arm for arm in self.task.arms if arm.name == judged.arms[0]]
        dropped = parts_of(run, arm.name)[judged.dropped] if judged.dropped else []
        without = modules if judged.step == 0 else dropped  # before the first step ΔW is 0
        return variant_of(arm, modules, run.snapshot(arm.name, judged.step), judged.cut, without)
