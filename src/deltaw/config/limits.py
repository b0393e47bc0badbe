"""Settings that no run can have, refused before anything is loaded."""

import re

from omegaconf import DictConfig

from deltaw.config.schema import NAME, NF4, TASKS, names_in
from deltaw.errors import UserError

# A factor in half precision loses the small steps of late training, and one gradient scaler would couple the arms.
PRECISIONS = ("32-true", "bf16-mixed", "64-true")

ENGINES = ("auto", "single", "ddp", "fsdp")


def check(cfg: DictConfig) -> None:
    """Refuse values that no run can have.

    Raises:
        UserError: a number is out of its range, or the precision is none that keeps arms apart.
    """
    counts = {
        "trainer.max_steps": cfg.trainer.max_steps,
        "optim.max_skipped": cfg.optim.max_skipped,
        "snapshots.every": cfg.snapshots.every,
        "metrics.every": cfg.metrics.every,
        "metrics.validate_every": cfg.metrics.validate_every,
        "data.batch": cfg.data.batch,
        "data.micro_batch": 1 if cfg.data.micro_batch is None else cfg.data.micro_batch,
        "data.max_completion": 1 if cfg.data.max_completion is None else cfg.data.max_completion,
        "data.validation": cfg.data.validation,
        "trainer.num_nodes": cfg.trainer.num_nodes,
    }
    for key, value in counts.items():
        if value < 1:
            raise UserError(f"{key}={value}: give 1 or more")
    for key, measure in cfg.device.items():
        if measure is not None and not measure > 0:
            raise UserError(f"device.{key}={measure} is no device's: give a number above 0, or null")
    if not names_in(cfg.arms.projections):
        raise UserError(f"arms.projections={cfg.arms.projections} adapts nothing: name at least one, as [q,v]")
    if cfg.data.max_length < 2:
        raise UserError(f"data.max_length={cfg.data.max_length} has no room for a prompt and a completion")
    if not 0 <= cfg.optim.warmup <= 1:
        raise UserError(f"optim.warmup={cfg.optim.warmup} is a share of all steps: give 0 to 1")
    if not cfg.optim.clip > 0 or not 0 <= cfg.optim.weight_decay < 1:
        raise UserError(
            f"optim.clip={cfg.optim.clip} must be above 0 and optim.weight_decay={cfg.optim.weight_decay} in [0, 1)"
        )
    for key, share in {"arms.dropout": cfg.arms.dropout, "optim.label_smoothing": cfg.optim.label_smoothing}.items():
        if not 0 <= share < 1:
            raise UserError(f"{key}={share} is a share of less than all: give a number in [0, 1)")
    if cfg.task not in TASKS:
        raise UserError(f"task={cfg.task} is not one of {', '.join(TASKS)}")
    if cfg.data.packing and cfg.task != "causal":
        raise UserError(
            f"data.packing=true lays several examples into a row, and task={cfg.task} reads a row as one, whose "
            "attention looks both ways or whose label is one: give data.packing=false"
        )
    if cfg.model.labels is not None and cfg.task != "classification":
        raise UserError(f"model.labels={cfg.model.labels} is of task=classification, and task={cfg.task}: leave it out")
    if cfg.data.path and "path" not in cfg.data.source:
        raise UserError(
            f"data.path={cfg.data.path} is not read by data={cfg.data.name}: give data=jsonl or data=hub as well"
        )
    if cfg.run.name and not re.fullmatch(NAME, cfg.run.name):
        raise UserError(f"run.name={cfg.run.name} names a directory: use letters, digits, '.', '_' and '-' alone")
    if cfg.trainer.precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={cfg.trainer.precision} would train the factors in half precision, or couple the arms "
            f"by one gradient scaler: choose from {', '.join(PRECISIONS)}; model.dtype=bfloat16 halves the base"
        )
    if cfg.model.dtype == NF4 and cfg.trainer.precision == "64-true":
        raise UserError("trainer.precision=64-true and model.dtype=nf4, which computes in bfloat16: give 32-true")
    if cfg.engine not in ENGINES:
        raise UserError(f"engine={cfg.engine} is not one of {', '.join(ENGINES)}")
    if not cfg.timeout > 0:
        raise UserError(f"timeout={cfg.timeout} is no time to wait: give seconds above 0")
    if cfg.model.dtype == NF4 and cfg.engine == "fsdp":
        raise UserError("engine=fsdp cannot cut packed weights, and model.dtype=nf4 packs them: give engine=ddp")
