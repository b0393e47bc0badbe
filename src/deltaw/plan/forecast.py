"""The plan of the run that a config describes, made before anything is loaded."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from deltaw.bundled.pretrain import Recipe, build
from deltaw.config.schema import NF4
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.attach import attach
from deltaw.lora.shadows import shadows_of
from deltaw.model.loading import Base, base_shape, load_tokenizer
from deltaw.plan.arithmetic import Hardware
from deltaw.plan.shapes import ShapeRun, count
from deltaw.plan.suggestion import Plan, Setup, suggest
from deltaw.plan.table import GIB
from deltaw.plan.workload import NF4_BYTES, Workload
from deltaw.training.build import gpus_here, objective_of, prepare_base


class UnplannableError(UserError):
    """A model can be trained, and cannot be counted, because it computes with values."""


def forecast(cfg: DictConfig, arms: list[Arm], devices: int, nodes: int) -> tuple[Setup, Plan]:
    """What the run needs and gets, and the plan that suits it.

    Args:
        cfg: the config of the run.
        arms: of the run.
        devices: of each machine.
        nodes: machines.

    Raises:
        UserError: the model has no config, or lacks the projections.
        UnplannableError: the model computes with values.
    """
    hardware = hardware_of(cfg, devices, nodes)
    setup = Setup(workload_of(cfg, arms), hardware, cfg.model.gradient_checkpointing)
    return setup, suggest(setup, cfg.data.batch, cfg.data.micro_batch)


def workload_of(cfg: DictConfig, arms: list[Arm]) -> Workload:
    """The base and the arms of a run, counted with rows of the full `data.max_length`.

    Raises:
        UserError: the model has no config, or lacks the projections.
        UnplannableError: the model computes with values.
    """
    base = shape_of(cfg)
    prompt, completion = _row_lengths(cfg)
    try:
        with ShapeRun():
            modules = prepare_base(cfg, base)
            objective = objective_of(cfg, base, modules)
            shadows = shadows_of(arms, cfg.arms.shadows)
            attach(base.model, modules, arms, base.heads, shadows)
        model = base.model.double() if cfg.trainer.precision == "64-true" else base.model
        mixed = cfg.trainer.precision == "bf16-mixed"
        # Nobody says that a device that the config describes is a CPU, where rows are packed unasked.
        packed = objective.packs and bool(cfg.data.packing or not cfg.device.memory)
        workload = count(model, arms, shadows, objective, prompt, completion, mixed, packed)
    except (RuntimeError, NotImplementedError) as error:
        raise UnplannableError(
            f"model.path={cfg.model.path} cannot be planned, because it computes with values, and a plan has shapes "
            f"alone: {str(error).splitlines()[0]}"
        ) from error
    if cfg.model.dtype == NF4:
        workload = replace(workload, base=workload.base.with_parameter_bytes(NF4_BYTES))
    return workload


def shape_of(cfg: DictConfig) -> Base:
    """The base of a run on the meta device: as its config.json says, or as the first run will pretrain it.

    Raises:
        UserError: the model has no config, or transformers has no such model for the task.
    """
    path = Path(cfg.model.path)
    if not cfg.model.pretrain or path.exists():
        return base_shape(cfg.model.path, cfg.model.dtype, cfg.task, cfg.model.labels)
    with torch.device("meta"):
        model = build(load_tokenizer("bundled"), Recipe(**cfg.model.pretrain))
    return Base(path.name, str(path), path, "", model.train(), 0, {})


def _row_lengths(cfg: DictConfig) -> tuple[int, int]:
    """Tokens of the longest prompt and of its completion. A causal row learns all of its tokens but the first, at most.

    The one label of a classification has no token.
    """
    longest = cfg.data.max_length
    if cfg.task == "causal":
        return 1, longest - 1
    return (longest, cfg.data.max_completion or longest) if cfg.task == "seq2seq" else (longest - 1, 1)


def hardware_of(cfg: DictConfig, devices: int, nodes: int) -> Hardware:
    """The devices of a run: as the config describes them, else as they are here; on a CPU, processes share the memory.

    Args:
        cfg: the config of the run. Its key `device` describes the hardware of one device.
        devices: of each machine.
        nodes: machines.
    """
    described = cfg.device
    return Hardware(
        devices=devices * nodes,
        memory_bytes=described.memory * GIB if described.memory else _memory_here(cfg, devices),
        bytes_per_second=(described.bandwidth or (350 if nodes == 1 else 50)) * 1e9,
        flops_per_second=described.speed * 1e12,
    )


def _memory_here(cfg: DictConfig, devices: int) -> float:
    """Bytes of the first GPU; without a GPU, the share of each process in the memory of this machine."""
    if gpus_here(cfg):
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices
