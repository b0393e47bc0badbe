"""The derivative of a frozen gated MLP from its gate and up alone, where autograd would take that of each operation.

    y = W₃ (f(g) ∘ u)      g = W₁ x      u = W₂ x      h = W₃ᵀ ∂L/∂y      ∂L/∂x = W₁ᵀ (h ∘ u ∘ f′(g)) + W₂ᵀ (h ∘ f(g))

It keeps g and u; autograd keeps f(g) too. A training step of the bundled base keeps 16 % fewer bytes of activations, in
no more time on a CPU (benchmarks/step.py).

Shapes: D the width of a state, M that of the MLP.
"""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deltaw.model.products import FrozenLinear, add_product, product
from deltaw.model.trial import CANNOT

# W₁, W₂, W₃ and f, as most of transformers' decoders call them.
_LAYERS, _ACTIVATION = ("gate_proj", "up_proj", "down_proj"), "act_fn"

# Of SiLU and both forms of GELU: ∂L/∂g from ∂L/∂f(g) and g.
Derivative = Callable[[Tensor, Tensor], Tensor]
_aten = torch.ops.aten
_DERIVATIVES: list[Derivative] = [
    _aten.silu_backward,
    partial(_aten.gelu_backward, approximate="tanh"),
    _aten.gelu_backward,
]


def shorten_gated_mlps(model: nn.Module) -> None:
    """Let each gated MLP of a frozen model, found by trying its code, have its derivative from gate and up alone.

    Where a layer of it is adapted, quantised, learns or has hooks, or a compiler reads that code, it stays autograd's.
    """
    for mlp in model.modules():
        if derivative := _derivative(mlp):
            mlp.forward = partial(_forward, mlp, mlp.forward, derivative)


def _forward(
    mlp: Any, own: Callable[..., Tensor], derivative: Derivative, x: Float[Tensor, "*tokens D"]
) -> Float[Tensor, "*tokens D"]:
    """The output of `mlp`, whose `own` code runs where one of its layers is more than a product."""
    layers = [getattr(mlp, name) for name in _LAYERS]
    if torch.compiler.is_compiling() or not all(map(_is_plain, layers)):
        return own(x)
    functions = mlp.act_fn, derivative
    y: Tensor = _GatedMLP.apply(x, functions, *(weight for one in layers for weight in (one.weight, one.bias)))
    return y


class _GatedMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*tokens D"],
        functions: tuple[Callable[[Tensor], Tensor], Derivative],
        gate_weight: Float[Tensor, "M D"],
        gate_bias: Float[Tensor, " M"] | None,
        up_weight: Float[Tensor, "M D"],
        up_bias: Float[Tensor, " M"] | None,
        down_weight: Float[Tensor, "D M"],
        down_bias: Float[Tensor, " D"] | None,
    ) -> Float[Tensor, "*tokens D"]:
        gate, up = product(x, gate_weight, gate_bias), product(x, up_weight, up_bias)
        ctx.save_for_backward(gate, up, gate_weight, up_weight, down_weight)
        ctx.functions, ctx.dtype = functions, x.dtype
        return product(functions[0](gate).mul_(up), down_weight, down_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Float[Tensor, "*tokens D"]) -> tuple[Tensor | None, ...]:
        gate, up, *weights = ctx.saved_tensors
        gate_weight, up_weight, down_weight = (weight.to(error.dtype) for weight in weights)  # as autocast does forward
        inner = product(error, down_weight.t())
        activation, derivative = ctx.functions
        of_up = activation(gate).mul_(inner)
        of_gate = derivative(inner.mul_(up), gate)
        dx = product(of_up, up_weight.t())
        add_product(dx, of_gate, gate_weight.t())
        return dx.to(ctx.dtype), *[None] * 7


def _is_plain(layer: nn.Module) -> bool:
    """Whether a call of this layer is a product with its frozen weight and nothing else."""
    own = "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    return (
        type(layer) in (nn.Linear, FrozenLinear)
        and not own
        and not any(weight.requires_grad for weight in layer.parameters())
    )


@torch.enable_grad()
def _derivative(mlp: nn.Module) -> Derivative | None:
    """That of a gated MLP's activation, found by trying the module's code with small layers; None for other modules."""
    layers: list[Any] = [getattr(mlp, name, None) for name in _LAYERS]
    others = {name for name, _ in mlp.named_children()} - {*_LAYERS, _ACTIVATION}
    if others or not hasattr(mlp, _ACTIVATION) or not all(isinstance(layer, nn.Linear) for layer in layers):
        return None
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    tried: Any = copy(mlp)
    tried._modules = {**mlp._modules}
    for name, layer, (d_in, d_out) in zip(_LAYERS, layers, [(3, 5), (3, 5), (5, 3)], strict=True):
        small = nn.utils.skip_init(nn.Linear, d_in, d_out, layer.bias is not None, device="cpu", dtype=torch.float64)
        for weight in small.requires_grad_(False).parameters():
            weight.copy_(draw(weight.shape))
        setattr(tried, name, small)
    x, error = draw(2, 4, 3).requires_grad_(), draw(2, 4, 3)
    try:
        right = _outcome(tried.forward, x, error)
        for derivative in _DERIVATIVES:
            found = _outcome(partial(_forward, tried, tried.forward, derivative), x, error)
            if all(torch.allclose(one, other, rtol=0, atol=1e-9) for one, other in zip(found, right, strict=True)):
                return derivative
    except CANNOT:
        pass
    return None


def _outcome(forward: Callable[..., Tensor], x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """What an MLP gives, and the gradient of its input."""
    y = forward(x)
    return y, torch.autograd.grad(y, x, error)[0]
