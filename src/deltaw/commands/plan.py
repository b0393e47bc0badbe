"""The command `train plan=true`: what a run takes, before anything is loaded."""

from pathlib import Path

from omegaconf import DictConfig

from deltaw.config.limits import check
from deltaw.errors import UserError
from deltaw.plan.forecast import forecast
from deltaw.plan.table import table
from deltaw.training.build import arms_of, gpus_here


def plan_table(cfg: DictConfig) -> str:
    """What the run takes, in words. Of the model, the config.json is enough.

    Raises:
        UserError: no run can have these settings, or the model has no config, lacks the projections or cannot be
            planned.
    """
    arms = arms_of(cfg)
    check(cfg)
    setup, plan = forecast(cfg, arms, _devices(cfg), cfg.trainer.num_nodes)
    return table(Path(cfg.model.path).name, setup, plan)


def _devices(cfg: DictConfig) -> int:
    """The devices of each machine that the config asks for, whether they are here or not."""
    match cfg.trainer.devices:
        case "auto" | -1 | "-1":
            return max(gpus_here(cfg), 1)
        case int(number) if number > 0:
            return number
        case [*numbers] if numbers:
            return len(numbers)
        case other:
            raise UserError(f"trainer.devices={other} cannot be planned for: give a number, a list of them, or auto")
