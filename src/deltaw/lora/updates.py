"""Add the update of each block of rows to the base's output, in place; blocks are arms side by side, or variants.

Shapes: K blocks, t tokens of all rows of a block, r the rank, s the ranks of all shadows of an arm.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear


class Factors(NamedTuple):
    """ΔW = scale · B A of one module.

    Attributes:
        shadows: factors of the same rank and scale that learn from the same rows, each under signs of its own.
    """

    A: Float[Tensor, "r d_in"]
    B: Float[Tensor, "d_out r"]
    scale: float
    shadows: Sequence["Factors"] = ()


def add_updates(
    y: Float[Tensor, "rows *tokens d_out"],
    x: Float[Tensor, "rows *tokens d_in"],
    blocks: Sequence[Factors | None],
    signs: Int[Tensor, "examples _ shadows"] | None = None,
) -> Float[Tensor, "rows *tokens d_out"]:
    """`y` with scale_k · B_k A_k x_k added to block k of its rows; the result takes the memory of `y`.

    The products are in the dtype of the factors, or of autocast where it is on.

    Args:
        y: the base's output, which nothing else reads.
        x: what the factors read. Rows and tokens may lie in one dimension.
        blocks: None for a block without an update.
        signs: +1 or −1 for each row, or for each token of each row, and each shadow of its block; 0 for padding.
    """
    dtype, device = next((factors.A.dtype for factors in blocks if factors), None), x.device.type
    if dtype is None:
        return y
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    scales = [factors.scale if factors else 0.0 for factors in blocks]
    tensors = [tensor for factors in blocks for tensor in _side_by_side(factors, signs is not None)]
    added: Tensor = _AddUpdates.apply(y, x, signs, dtype, scales, *tensors)
    return added


def _side_by_side(factors: Factors | None, with_shadows: bool) -> tuple[Tensor | None, ...]:
    """A and B, then A and B of all shadows side by side."""
    if factors is None:
        return None, None, None, None
    if not (with_shadows and factors.shadows):
        return factors.A, factors.B, None, None
    A = torch.cat([shadow.A for shadow in factors.shadows])
    B = torch.cat([shadow.B for shadow in factors.shadows], 1)
    return factors.A, factors.B, A, B


class _AddUpdates(torch.autograd.Function):
    """A shadow gets the gradients that y + s (u − stopgrad(u)) would give, with u = scale · B A x its own update.

    As u is never computed, it costs nothing in the forward pass, and a shadow that is not finite does not reach the
    model. Autograd is not told that `y` changes in place: the base's layers are linear and do not keep their output,
    and the backward pass of a change in place would copy the errors wherever `y` is a view.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        signs: Tensor | None,
        dtype: torch.dtype,
        scales: Sequence[float],
        *factors: Tensor | None,
    ) -> Tensor:
        # A compiler fuses the copy.
        copied = torch.compiler.is_compiling()
        out = y.clone(memory_format=torch.contiguous_format) if copied else y.contiguous().detach()
        blocks, inputs = _by_block(out, len(scales)), _by_block(x.to(dtype), len(scales))
        cast = [None if one is None else one.to(dtype) for one in factors]
        states: list[Tensor | None] = [None] * len(scales)
        for k, scale in enumerate(scales):
            A, B = cast[4 * k : 4 * k + 2]
            if A is None or B is None:
                continue
            states[k] = state = linear(inputs[k], A)
            if out.dtype == dtype:
                blocks[k].addmm_(state, B.T, alpha=scale)
            else:
                blocks[k].add_(linear(state, B), alpha=scale)
        ctx.scales, ctx.dtypes = scales, [None if one is None else one.dtype for one in factors]
        ctx.save_for_backward(x, signs, *states, *cast)
        return out

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        x, signs, *saved = ctx.saved_tensors
        count, needed = len(ctx.scales), ctx.needs_input_grad[5:]
        states, cast = saved[:count], saved[count:]
        dtype = cast[0].dtype
        errors, inputs = _by_block(error.to(dtype), count), _by_block(x.to(dtype), count)
        dx = torch.empty_like(inputs) if ctx.needs_input_grad[1] else None
        gradients: list[Tensor | None] = []
        for k, scale in enumerate(ctx.scales):
            A, B, shadow_A, shadow_B = cast[4 * k : 4 * k + 4]
            weighted = (errors[k] @ B).mul_(scale)
            gradients.append(weighted.T @ inputs[k] if needed[4 * k] else None)
            gradients.append(errors[k].T @ (scale * states[k]))
            if dx is not None:
                dx[k].addmm_(weighted, A, beta=0)
            if shadow_A is None:
                gradients += [None, None]
                continue
            weights = scale * _by_token(signs.chunk(count)[k], len(inputs[k]), dtype)
            gradients.append(_weighted(errors[k] @ shadow_B, weights).T @ inputs[k])
            gradients.append(errors[k].T @ _weighted(linear(inputs[k], shadow_A), weights))
        gradients = [None if one is None else one.to(dtype) for one, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return error, None if dx is None else dx.view(x.shape).to(x.dtype), None, None, None, *gradients


def _by_block(tensor: Float[Tensor, "rows *tokens width"], count: int) -> Float[Tensor, "K t width"]:
    return tensor.reshape(count, -1, tensor.shape[-1])


def _by_token(signs: Int[Tensor, "examples _ shadows"], tokens: int, dtype: torch.dtype) -> Float[Tensor, "t shadows"]:
    return signs.expand(-1, tokens // len(signs), -1).flatten(0, 1).to(dtype)


def _weighted(values: Float[Tensor, "t s"], weights: Float[Tensor, "t shadows"]) -> Float[Tensor, "t s"]:
    return (values.unflatten(1, (weights.shape[1], -1)) * weights[:, :, None]).flatten(1)
