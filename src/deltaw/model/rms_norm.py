"""The derivative of RMSNorm in closed form, where autograd would take that of each operation by itself.

    y = g · x / ρ      ρ = √(mean(x²) + ε)      ∂L/∂x = (g · ∂L/∂y − x · mean(g · ∂L/∂y · x) / ρ²) / ρ

It keeps x alone. A training step takes 2 % less time on an Intel Xeon; on an AMD EPYC none shows. In bfloat16, where
autograd keeps x in float32, a model of SmolLM2-135M's shape keeps 10 % fewer bytes of activations (benchmarks/step.py).

Shape: D, the width that is normalised.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deltaw.model.trial import CANNOT


def shorten_derivatives(model: nn.Module) -> None:
    """Let each RMSNorm of a frozen model, found by trying it, have its derivative in closed form.

    What it computes stays with its own code. Where its weight learns, or a compiler reads that code, the derivative is
    autograd's too.
    """
    for norm in model.modules():
        if (offset := _offset(norm)) is not None:
            norm.forward = partial(_forward, norm, norm.forward, offset)


def _forward(
    norm: Any, own: Callable[..., Tensor], offset: float, x: Float[Tensor, "*tokens D"], *others: Any, **named: Any
) -> Float[Tensor, "*tokens D"]:
    """The output of `norm`, whose `own` code computes it; its gain is its weight plus `offset`."""
    if others or named or norm.weight.requires_grad or torch.compiler.is_compiling():
        return own(x, *others, **named)
    y: Tensor = _RMSNorm.apply(x, norm.weight, own, offset, _eps(norm))
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*tokens D"], weight: Float[Tensor, " D"], own: Any, offset: float, eps: float
    ) -> Float[Tensor, "*tokens D"]:
        ctx.save_for_backward(x, weight)
        ctx.offset, ctx.eps = offset, eps
        y: Tensor = own(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Float[Tensor, "*tokens D"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        exact = torch.promote_types(x.dtype, torch.float32)
        inputs = x.to(exact)
        scale = (
            torch.linalg.vector_norm(inputs, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(ctx.eps).rsqrt_()
        )
        dx = error.to(exact) * (weight.to(exact) + ctx.offset)
        along = (dx * inputs).mean(-1, keepdim=True).mul_(scale).mul_(scale)
        return dx.addcmul_(inputs, along, value=-1).mul_(scale).to(x.dtype), None, None, None, None


def _eps(norm: nn.Module) -> float | None:
    """ε, which transformers' classes keep under either name."""
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return eps if isinstance(eps, float) else None


@torch.enable_grad()
def _offset(norm: nn.Module) -> float | None:
    """What a module's gain has beside its weight (1 in Gemma, else 0), or None if it is no RMSNorm."""
    weights = dict(norm.named_parameters())
    if weights.keys() != {"weight"} or weights["weight"].dim() != 1 or _eps(norm) is None:
        return None
    width = len(weights["weight"])
    # The base may be on the meta device, where nothing can be tried.
    tried: Any = deepcopy(norm).to_empty(device="cpu").float().requires_grad_(False)
    waves = torch.arange(3 * 4 * width, dtype=torch.float32, device="cpu").square().cos().view(3, 4, width)
    tried.weight.copy_(waves[0, 0])
    x = (waves[1] + 0.3) * torch.tensor([[1.0], [0.1], [1e-3], [1e-4]], device="cpu")  # where x is small, ε decides
    x, error = x.requires_grad_(), waves[2]
    try:
        (right,) = torch.autograd.grad(tried(x), x, error)
    except CANNOT:
        return None
    sizes = right.abs().amax(1, keepdim=True)
    for offset in (0.0, 1.0):
        (found,) = torch.autograd.grad(_forward(tried, tried.forward, offset, x), x, error)
        if bool(((found - right).abs() <= 1e-4 * sizes).all()):
            return offset
    return None
