"""The micro-batches of a run, shared among its processes."""

from omegaconf import DictConfig
from pytorch_lightning import Trainer

from deltaw.data.batches import Examples, StepBatches
from deltaw.errors import UserError
from deltaw.lora.arm import Arm


def step_batches(cfg: DictConfig, arms: list[Arm], learnt: Examples, rows: int | None, trainer: Trainer) -> StepBatches:
    """The micro-batches of this process; `trainer` then takes as many of them per optimiser step as a step has.

    Args:
        cfg: the config of the run.
        arms: whose rows a batch holds, side by side.
        learnt: the examples to learn.
        rows: of one arm in a micro-batch at most; None for no limit.
        trainer: knows the processes.

    Raises:
        UserError: the processes cannot share the batch equally.
    """
    rows = micro_batch(cfg.data.batch, rows, trainer.world_size)
    shared_out = (cfg.data.batch, rows, cfg.trainer.max_steps, trainer.global_rank, trainer.world_size)
    batches = StepBatches(learnt, arms, *shared_out, cfg.data.packing, cfg.arms.shadows)
    trainer.accumulate_grad_batches = batches.accumulate
    return batches


def micro_batch(batch: int, limit: int | None, world: int) -> int:
    """Rows of one arm in a forward pass of one process: its share of the batch, at most `limit`.

    Args:
        batch: rows of one arm in an optimiser step, over all processes.
        limit: data.micro_batch; None for no limit.
        world: number of processes.

    Raises:
        UserError: the processes cannot share the batch equally.
    """
    rows = min(limit or batch, max(1, batch // world))
    if batch % (rows * world):
        raise UserError(
            f"data.batch={batch} is not a multiple of {world} processes × data.micro_batch={rows}: change one of them"
        )
    return rows
