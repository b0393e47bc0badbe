"""What `run.json` tells of a run, gathered before it starts."""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import DictConfig

import deltaw
from deltaw.data.corpus import Corpus
from deltaw.data.held_out import Split
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.model.loading import Base
from deltaw.model.names import is_conv1d, widths
from deltaw.model.split import SplitLinear
from deltaw.run.name import name_of_data
from deltaw.run.record import ArmRecord, BaseRecord, DataRecord, RunRecord
from deltaw.run.weights import Weight, find_weight
from deltaw.training.launching import say


def record_of(
    cfg: DictConfig, base: Base, arms: Sequence[Arm], modules: dict[str, str], corpus: Corpus, split: Split
) -> RunRecord:
    """The record of the run.

    Args:
        cfg: its config.
        base: its base, with the arms attached.
        arms: what it trains, shadows too.
        modules: the projection of each adapted module, by the module's name.
        corpus: its data set.
        split: which examples are learnt, and which are held out.
    """
    new_heads = any(base.heads.values())
    return RunRecord(
        name=cfg.run.name,
        base=BaseRecord(name=base.name, path=base.path, sha256=base.sha256, dtype=cfg.model.dtype),
        task=cfg.task,
        arms=[_arm_record(arm, new_heads) for arm in arms],
        init="A uniform within ±1/√d_in from sha256(arm name, module name), B zero",
        modules=modules,
        heads={module: "drawn from head_seed" if draw else "the base's" for module, draw in base.heads.items()},
        weights=_weights(base, modules),
        data=DataRecord(
            name=name_of_data(cfg),
            examples=len(corpus),
            shortened=corpus.shortened,
            dropped=corpus.dropped,
            labels=corpus.labels,
            fingerprint=corpus.fingerprint,
            rows=corpus.rows,
            validation_path=cfg.data.validation_path,
            group=corpus.group,
            learnt=len(split.learnt),
            validation=len(split.validation),
            judged=len(split.judged),
            left_out=split.left_out,
        ),
        versions=_versions(),
        hardware=_hardware(),
    )


def _arm_record(arm: Arm, new_head: bool) -> ArmRecord:
    record: Any = {**asdict(arm), "scale": arm.scale}
    return record | {"head_seed": arm.head_seed} if new_head and not arm.shadow else record


def _weights(base: Base, modules: Iterable[str]) -> dict[str, Weight]:
    """Where the frozen W of every adapted module lies; empty where a file names one differently."""
    layers = {module: base.model.get_submodule(f"{module}.base") for module in modules}
    split = {name: layer.layout for name, layer in base.model.named_modules() if isinstance(layer, SplitLinear)}
    try:
        return {
            module: find_weight(base.folder, module, widths(layer)[::-1], is_conv1d(layer), split)
            for module, layer in layers.items()
        }
    except UserError as error:
        say(f"{error}; the run goes on without a record of W")
        return {}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "deltaw": deltaw.__version__,  # not from the metadata: a checkout need not be installed
        **{name: version(name) for name in ("torch", "transformers", "peft", "pytorch-lightning")},
    }


def _hardware() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
