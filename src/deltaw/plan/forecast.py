"""What the run that a config describes would take, counted before anything of it is loaded."""

import os
from pathlib import Path

import torch
from omegaconf import DictConfig

from deltaw.config.schema import NF4
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.layers import attach
from deltaw.model.loading import base_shape
from deltaw.plan.arithmetic import PACKED, Facts, Hardware, suggest
from deltaw.plan.shapes import DryRun, count
from deltaw.plan.table import GIB, verdict
from deltaw.training.build import prepared


class UnplannableError(UserError):
    """A model that can be trained, and not be counted."""


def facts_of(cfg: DictConfig, arms: list[Arm]) -> Facts:
    """What is counted of the run's base and arms, with rows of the full `data.max_length`.

    Raises:
        UserError: the model has no config, has not the projections asked for, or cannot do without values.
    """
    if cfg.model.pretrain and not Path(cfg.model.path).exists():
        raise UserError(f"model.path={cfg.model.path} is not there to be planned: the first run pretrains it")
    base = base_shape(cfg.model.path, cfg.model.dtype, cfg.task, cfg.model.labels)
    longest = cfg.data.max_length
    prompt = longest if cfg.task == "seq2seq" else longest - 1
    completion = (cfg.data.max_completion or longest) if cfg.task == "seq2seq" else 1
    try:
        with DryRun():
            modules, objective = prepared(cfg, base)
            attach(base.model, modules, arms, base.heads)
        model = base.model.double() if cfg.trainer.precision == "64-true" else base.model
        facts = count(model, arms, objective, prompt, completion, cfg.trainer.precision == "bf16-mixed")
    except (RuntimeError, NotImplementedError) as error:
        raise UnplannableError(
            f"model.path={cfg.model.path} cannot be planned, since what it computes takes values, and there are shapes "
            f"alone: {str(error).splitlines()[0]}"
        ) from error
    return facts.stored(PACKED) if cfg.model.dtype == NF4 else facts


def hardware_of(cfg: DictConfig, devices: int, nodes: int) -> Hardware:
    """What `devices` on each of `nodes` machines have; on a CPU, processes share the memory.

    Args:
        cfg: of the run, whose settings of the device come before what is found here.
        devices: of each machine.
        nodes: machines.
    """
    ours = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices
    memory = torch.cuda.get_device_properties(0).total_memory if gpus_here(cfg) else ours
    bandwidth = cfg.device.bandwidth or (350 if nodes == 1 else 50)
    memory = cfg.device.memory * GIB if cfg.device.memory else memory
    return Hardware(devices * nodes, memory, bandwidth * 1e9, cfg.device.speed * 1e12)


def gpus_here(cfg: DictConfig) -> int:
    """GPUs of this machine that the config allows."""
    return torch.cuda.device_count() if cfg.trainer.accelerator in ("auto", "gpu", "cuda") else 0


def engine_of(cfg: DictConfig, arms: list[Arm], devices: int, nodes: int) -> tuple[str, int | None, str]:
    """What engine=auto chooses for several processes: the first that fits, rows of a micro-batch, and why, in words.

    Where the base cannot be planned, it is ddp with as many rows as the batch gives.

    Raises:
        UserError: the model has no config, or has not the projections asked for.
    """
    hardware, checkpointing = hardware_of(cfg, devices, nodes), cfg.model.gradient_checkpointing
    try:
        facts = facts_of(cfg, arms)
    except UnplannableError as error:
        return "ddp", None, str(error)
    plan = suggest(facts, hardware, cfg.data.batch, cfg.data.micro_batch, checkpointing)
    return plan.engine, plan.rows, verdict(facts, hardware, plan, checkpointing)
