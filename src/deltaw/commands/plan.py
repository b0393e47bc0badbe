"""What the run that a config describes would take, before anything of it is loaded."""

from pathlib import Path

from omegaconf import DictConfig

from deltaw.config.limits import check
from deltaw.errors import UserError
from deltaw.plan.arithmetic import suggest
from deltaw.plan.forecast import facts_of, gpus_here, hardware_of
from deltaw.plan.table import table
from deltaw.training.build import arms_of


def planned(cfg: DictConfig) -> str:
    """What the run would take, in words; its model is known by its config.json alone.

    Raises:
        UserError: no run can have these settings, or the model has no config, or not the projections asked for.
    """
    arms = arms_of(cfg)
    check(cfg)
    facts = facts_of(cfg, arms)
    hardware = hardware_of(cfg, _devices(cfg), cfg.trainer.num_nodes)
    checkpointing = cfg.model.gradient_checkpointing
    plan = suggest(facts, hardware, cfg.data.batch, cfg.data.micro_batch, checkpointing)
    return table(Path(cfg.model.path).name, facts, hardware, plan, checkpointing)


def _devices(cfg: DictConfig) -> int:
    """How many devices of each machine are asked for, whether they are here or not."""
    match cfg.trainer.devices:
        case "auto" | -1 | "-1":
            return max(gpus_here(cfg), 1)
        case int(number) if number > 0:
            return number
        case [*numbers] if numbers:
            return len(numbers)
        case other:
            raise UserError(f"trainer.devices={other} cannot be planned for: give a number, a list of them, or auto")
