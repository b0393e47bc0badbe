"""Where an optimiser step ends."""

from pytorch_lightning import Trainer


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch was the last of its optimiser step; `global_step` alone is seen once a micro-batch."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0
