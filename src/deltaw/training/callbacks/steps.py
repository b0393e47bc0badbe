"""The end of an optimiser step."""

from pytorch_lightning import Trainer


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch is the last of its optimiser step: `global_step` stays the same for several of them."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0
