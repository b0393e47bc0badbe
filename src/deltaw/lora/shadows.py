"""Shadows: factors that learn from an arm's inputs and errors under random signs, and that the model never reads.

Two arms share directions because of what they learned, and also because they read the same inputs. A shadow has the
arm's rank, start rule, optimiser, learning rate and clipping; it learns from the arm's own inputs and back-propagated
errors, each example's under a random sign, so that on average there is nothing to learn. What the shadows of two arms
share, the arms would share with nothing to learn.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deltaw.lora.arm import Arm, seed_from
from deltaw.run.record import SHADOW, name_of_shadow


def shadows_of(arms: Sequence[Arm], count: int) -> list[Arm]:
    """`count` shadows of each arm of the task, arm by arm; a control has none."""
    return [
        replace(arm, name=name_of_shadow(arm.name, n), control=SHADOW, shadow=n)
        for arm in arms
        if arm.control is None
        for n in range(1, count + 1)
    ]


def sign_of(shadow: str, example: int, epoch: int) -> int:
    """+1 or −1, each in half of all cases: the sign of an example's errors in an epoch, for the shadow of this name."""
    return 1 - 2 * (seed_from(shadow, example, epoch) & 1)


class _Teach(torch.autograd.Function):
    """Hand on an arm's update unchanged; in the backward pass, give a shadow its gradients.

    They are the gradients that y + s (u − stopgrad(u)) would give, with u = scale · B A x the shadow's own update. As u
    is never computed, it costs nothing in the forward pass, and a shadow that is not finite does not reach the model.
    """

    @staticmethod
    def forward(ctx: Any, update: Tensor, x: Tensor, signs: Tensor, A: Tensor, B: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, signs, A, B)
        ctx.scale = scale
        return update.view_as(update)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        x, signs, A, B = ctx.saved_tensors
        x, errors, weights = x.flatten(0, -2), error.flatten(0, -2), ctx.scale * signs[:, None].to(x.dtype)
        grad_A = (weights * (errors @ B.to(x.dtype))).T @ x
        grad_B = errors.T @ (weights * (x @ A.to(x.dtype).T))
        return error, None, None, grad_A.to(A.dtype), grad_B.to(B.dtype), None


def teach(
    update: Float[Tensor, "*tokens d_out"],
    x: Float[Tensor, "*tokens d_in"],
    signs: Int[Tensor, "rows _"],
    A: Float[Tensor, "r d_in"],
    B: Float[Tensor, "d_out r"],
    scale: float,
) -> Float[Tensor, "*tokens d_out"]:
    """`update`, unchanged; its backward pass gives A and B of a shadow their gradients.

    Args:
        update: an arm's update of its layer's output.
        x: what the arm's A read, in the dtype of the products. Rows and tokens may lie in one dimension.
        signs: +1 or −1 for each row, or for each token of each row; 0 for padding.
        A, B: the shadow's factors.
        scale: the factor of B A x.
    """
    by_token = signs.expand(-1, x.shape[:-1].numel() // len(signs)).reshape(-1)
    taught: Tensor = _Teach.apply(update, x, by_token, A, B, scale)
    return taught
