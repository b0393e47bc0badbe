"""The micro-batches of a run, shared among its processes."""

from omegaconf import DictConfig
from pytorch_lightning import Trainer

from deltaw.data.batches import Examples, StepBatches
from deltaw.errors import UserError
from deltaw.lora.arm import Arm


def step_batches(
    cfg: DictConfig, arms: list[Arm], learnt: Examples, rows: int | None, packing: bool, trainer: Trainer
) -> StepBatches:
    """The micro-batches of this process; `trainer` then takes as many of them per optimiser step as a step has.

    Args:
        cfg: the config of the run.
        arms: whose rows a batch holds, side by side.
        learnt: the examples to learn.
        rows: of one arm in a micro-batch at most; None for no limit.
        packing: whether examples share rows.
        trainer: knows the processes and their devices.

    Raises:
        UserError: the processes cannot share the batch equally.
    """
    if rows is None and not packing and trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu":
        rows = rows_alone(cfg.data.batch)
    rows = micro_batch(cfg.data.batch, rows, trainer.world_size)
    shared_out = (cfg.data.batch, rows, cfg.trainer.max_steps, trainer.global_rank, trainer.world_size)
    batches = StepBatches(learnt, arms, *shared_out, packing, cfg.arms.shadows)
    trainer.accumulate_grad_batches = batches.accumulate
    return batches


def rows_alone(batch: int) -> int:
    """Rows of one arm in a forward pass where one process computes all of them on a CPU, one example in each.

    There a pass on few rows costs no more for each row, and rows of like length pad less: a quarter of the batch, or
    the next number that divides it. A GPU would wait between small passes.
    """
    return next(rows for rows in range(max(1, batch // 4), 0, -1) if batch % rows == 0)


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
