"""Checks of the first step and of every checkpoint, under any engine; training stops where one fails.

Without them, these errors pass unnoticed: gradients that the processes do not reduce, processes that drift apart, an
arm that does not reach the loss.
"""

from collections.abc import Iterable

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from deltaw.errors import UserError
from deltaw.lora.sharded import gather
from deltaw.training.callbacks.steps import ends_step
from deltaw.training.engines import Sharded
from deltaw.training.task import LoraArms


class SelfChecks(Callback):
    """Refuse to go on if the processes hold different arms, or if an arm does not learn.

    Args:
        every: optimiser steps between checkpoints; before each one, the processes compare their arms.
    """

    def __init__(self, every: int):
        self.every = every

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if isinstance(trainer.strategy, Sharded):
            unsharded = [name for name, weight in _trained(task) if not isinstance(weight, DTensor)]
            if unsharded:
                raise UserError(
                    f"engine=fsdp left {len(unsharded)} weights of the arms unsharded, as {unsharded[0]}, so that no "
                    "process would reduce their gradients: take engine=ddp, and report this base"
                )
        self._compare(trainer, task, "before the first step")

    def on_before_optimizer_step(self, trainer: Trainer, task: LoraArms, optimizer: Optimizer) -> None:  # type: ignore[override]
        if trainer.global_step > 0:
            return
        gradients = {name: weight.grad for name, weight in _trained(task)}
        if not _same_everywhere(trainer, [grad for grad in gradients.values() if grad is not None]):
            raise UserError(
                "after the first backward pass the gradients of the processes are not the same: they were not reduced, "
                "and each process would train arms of its own"
            )
        # Of a shadow it may be zero: two equal examples can have opposite signs.
        of_arms = {name: grad for name, grad in gradients.items() if ".B." in name and _place(name) < len(task.arms)}
        idle = [name for name, grad in of_arms.items() if grad is None or _is_zero(grad)]
        if idle:
            raise UserError(
                f"{len(idle)} factors B have no gradient at the first step, as {idle[0]}: their layers do not reach "
                "the loss, so leave them out of arms.projections"
            )

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, task: LoraArms, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        step = trainer.global_step
        if ends_step(trainer, batch_idx) and (step == 1 or step % self.every == 0 or step == trainer.max_steps):
            self._compare(trainer, task, f"after step {step}")

    def _compare(self, trainer: Trainer, task: LoraArms, when: str) -> None:
        if not _same_everywhere(trainer, [weight.detach() for weight in task.state_of_arms().values()]):
            raise UserError(
                f"{when} the arms of the processes are not the same: they have drifted apart since the last snapshot, "
                "from which the same command goes on"
            )


def _trained(task: LoraArms) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in task.named_parameters() if weight.requires_grad]


def _place(name: str) -> int:
    """The place of a factor's arm among the learners: the end of its name."""
    return int(name.rpartition(".")[2])


def _is_zero(gradient: Tensor) -> bool:
    return not bool(gather((gradient != 0).sum()))  # not max(): a part may be empty, and has no largest value


def _same_everywhere(trainer: Trainer, tensors: Iterable[Tensor]) -> bool:
    """Whether all processes hold the same bits in `tensors`; those held in parts are left out."""
    sums = [_bits(tensor) for tensor in tensors if not isinstance(tensor, DTensor)]
    mine = torch.stack(sums).tolist() if sums else []
    same = trainer.strategy.broadcast(mine) == mine
    return bool(trainer.strategy.reduce_boolean_decision(same, all=True))


def _bits(tensor: Tensor) -> Tensor:
    """A checksum of a tensor that depends on the order of its values."""
    words = tensor.contiguous().view(torch.int64 if tensor.dtype in (torch.float64, torch.int64) else torch.int32)
    flat = words.flatten().to(torch.int64)
    return (flat * (2 * torch.arange(len(flat), device=flat.device) + 1)).sum()
