"""Products with frozen weights by oneDNN, on processors of AMD that have AVX-512.

PyTorch has its products in float32 made by MKL, which does without AVX-512 there. oneDNN, which is in PyTorch too, uses
it: a training step of the bundled base takes 6 % less time (benchmarks/step.py).

oneDNN makes code for each shape and keeps it, and almost every step has another number of tokens: so it is told to keep
little, and is not asked for products that are made sooner than the code.

Shapes: D the width of the input, M that of the output.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

# With fewer tokens, or values of a weight, making the code takes longer than it saves.
_TOKENS, _VALUES = 1024, 2**16
# For how many products oneDNN and PyTorch's layer above it keep code; a step of a decoder has a dozen shapes.
_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32"}


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a model, while they are frozen, multiply by oneDNN, where that is faster."""
    if not onednn_is_faster():
        return
    for name, count in _KEPT.items():
        os.environ.setdefault(name, count)  # they are read when oneDNN first multiplies
    for layer in model.modules():
        if type(layer) is nn.Linear and _is_large(layer.weight):
            layer.__class__ = FrozenLinear


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor on which MKL leaves out AVX-512, and this PyTorch can ask oneDNN for products."""
    processor = Path("/proc/cpuinfo")
    return (
        hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.mkl.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and processor.exists()
        and "AuthenticAMD" in processor.read_text()
    )


class FrozenLinear(nn.Linear):
    """A linear layer that multiplies by oneDNN unless it learns or is compiled."""

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens M"]:
        frozen = not self.weight.requires_grad and (self.bias is None or not self.bias.requires_grad)
        if torch.compiler.is_compiling() or not frozen or not _by_onednn(x, self.weight):
            return super().forward(x)
        y: Tensor = _Product.apply(x, self.weight, self.bias)
        return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*tokens D"], weight: Float[Tensor, "M D"], bias: Float[Tensor, " M"] | None
    ) -> Float[Tensor, "*tokens M"]:
        ctx.save_for_backward(weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Float[Tensor, "*tokens M"]) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return product(error, weight.t()), None, None


def product(
    x: Float[Tensor, "*tokens D"], weight: Float[Tensor, "M D"], bias: Float[Tensor, " M"] | None = None
) -> Float[Tensor, "*tokens M"]:
    """What `torch.nn.functional.linear` gives, up to rounding, without a derivative: by oneDNN where that is faster."""
    if not _by_onednn(x, weight):
        return linear(x, weight, bias)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return y


def add_product(y: Float[Tensor, "*tokens M"], x: Float[Tensor, "*tokens D"], weight: Float[Tensor, "M D"]) -> None:
    """Add to `y`, in place, what `product` gives."""
    if _by_onednn(x, weight):
        y.add_(product(x, weight))
    else:
        y.flatten(0, -2).addmm_(x.flatten(0, -2), weight.t())


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    plain = type(x) is Tensor and type(weight) in (Tensor, nn.Parameter) and x.is_cpu
    same = x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    large = x.numel() >= _TOKENS * x.shape[-1] and _is_large(weight)
    return plain and same and large and onednn_is_faster()


def _is_large(weight: Tensor) -> bool:
    return weight.dtype is torch.float32 and weight.numel() >= _VALUES
