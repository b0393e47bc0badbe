"""Which engine a run trains under: `single`, `ddp` or `fsdp`, as `deltaw.training.engines` implements them."""

from dataclasses import dataclass

from omegaconf import DictConfig

from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.plan.forecast import UnplannableError, forecast
from deltaw.plan.table import verdict
from deltaw.training.launching import Launch


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a run.

    Attributes:
        name: single, ddp or fsdp.
        rows: of one arm in a micro-batch of one process at most; None for no limit.
        reason: why, in words.
    """

    name: str
    rows: int | None
    reason: str


def choose_engine(cfg: DictConfig, arms: list[Arm], launch: Launch) -> EngineChoice:
    """The engine that the config names; for engine=auto, the one that suits the number of processes and the memory.

    Raises:
        UserError: engine=single and several processes; or, for engine=auto, the model has no config or lacks the
            projections.
    """
    if cfg.engine == "single" and launch.world > 1:
        raise UserError(f"engine=single is for one process, and there are {launch.world}: give ddp, fsdp or one device")
    if cfg.engine != "auto":
        return EngineChoice(cfg.engine, cfg.data.micro_batch, "as asked")
    if launch.world == 1:
        return EngineChoice("single", cfg.data.micro_batch, "there is one process")
    return _engine_that_fits(cfg, arms, launch)


def _engine_that_fits(cfg: DictConfig, arms: list[Arm], launch: Launch) -> EngineChoice:
    """The engine that moves least and fits into memory; ddp where the base cannot be planned."""
    try:
        setup, plan = forecast(cfg, arms, launch.local, launch.nodes)
    except UnplannableError as error:
        return EngineChoice("ddp", None, str(error))
    return EngineChoice(plan.engine, plan.rows, verdict(setup, plan))
