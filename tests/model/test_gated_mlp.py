"""The derivative of a gated MLP from gate and up alone is autograd's, and other MLPs are left alone."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from deltaw.model.gated_mlp import shorten_gated_mlps
from tests.support.architectures import ARCHITECTURES

D, M = 6, 10


def mlp(
    activation: str = "silu", bias: bool = False, dtype: torch.dtype = torch.float64, kind: Any = LlamaMLP
) -> nn.Module:
    """A frozen one with random weights."""
    made: nn.Module = kind(
        LlamaConfig(hidden_size=D, intermediate_size=M, num_attention_heads=2, hidden_act=activation, mlp_bias=bias)
    )
    for weight in made.parameters():
        nn.init.uniform_(weight, -1, 1, generator=torch.Generator().manual_seed(weight.numel()))
    return made.to(dtype).requires_grad_(False)


def shortened(module: nn.Module) -> nn.Module:
    copied = deepcopy(module)
    shorten_gated_mlps(copied)
    return copied


def is_shortened(module: nn.Module) -> bool:
    return "forward" in vars(module)


def gradient(module: nn.Module, x: Tensor, error: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(module(x), x, error)
    return found


def kept(module: nn.Module, x: Tensor) -> list[torch.Size]:
    """Shapes of what the backward pass needs, weights apart."""
    weights = {weight.data_ptr() for weight in module.parameters()}
    found: dict[int, torch.Size] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            found[tensor.data_ptr()] = tensor.shape
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = module(x.clone().requires_grad_())  # while it lives, no place in memory is taken twice
    assert y.requires_grad
    return list(found.values())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh", "gelu"])
@given(values=arrays(float, (2, 2, 3, D), elements=st.floats(-3, 3)))
def test_the_derivative_is_autograds(activation: str, bias: bool, values: Any) -> None:
    own, (x, error) = mlp(activation, bias), torch.as_tensor(values)
    ours = shortened(own)
    assert is_shortened(ours)
    assert torch.equal(ours(x), own(x))
    assert_close(gradient(ours, x, error), gradient(own, x, error), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_gradient_is_as_exact(dtype: torch.dtype, mixed: bool) -> None:
    own, generator = mlp(dtype=dtype), torch.Generator().manual_seed(0)
    x, error = (torch.randn(50, D, generator=generator).to(dtype) for _ in range(2))
    right = gradient(mlp().double(), x.double(), error.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        outputs = [(module(some := x.clone().requires_grad_()), some) for module in (shortened(own), own)]
    found = [torch.autograd.grad(y, some, error.to(y.dtype))[0] for y, some in outputs]
    assert found[0].dtype == found[1].dtype
    ours, theirs = ((one.double() - right).norm() for one in found)
    assert 0 < ours <= 2 * theirs


def test_it_keeps_gate_and_up_alone() -> None:
    x = torch.ones(4, D, dtype=torch.float64)
    assert kept(mlp(), x) == [(4, M)] * 3
    assert kept(shortened(mlp()), x) == [(4, M)] * 2


def test_a_layer_that_is_adapted_learns_or_is_watched_stays_autograds() -> None:
    x = torch.ones(4, D, dtype=torch.float64)

    class Other(nn.Linear):
        pass

    def adapt(module: Any) -> None:
        module.up_proj = Other(D, M, dtype=torch.float64).requires_grad_(False)

    def train(module: Any) -> None:
        module.up_proj.weight.requires_grad_()

    def watch(module: Any) -> None:
        module.up_proj.register_forward_hook(lambda *_: None)

    for change in (adapt, train, watch):
        module = shortened(mlp())
        change(module)
        assert len(kept(module, x)) > 2
    learning = shortened(mlp())
    train(learning)
    learning(x).sum().backward()
    assert learning.get_parameter("up_proj.weight").grad is not None


def test_a_copy_reads_its_own_weights() -> None:
    first = shortened(mlp())
    second = deepcopy(first)
    nn.init.zeros_(second.get_parameter("down_proj.weight"))
    x = torch.ones(1, D, dtype=torch.float64)
    assert first(x).any()
    assert not second(x).any()
    assert not gradient(second, x, x).any()


class Scaled(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Dropped(LlamaMLP):
    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.dropout = nn.Dropout(0.5)


def test_an_mlp_that_computes_something_else_is_left_alone() -> None:
    assert not is_shortened(shortened(mlp(kind=Scaled)))
    assert not is_shortened(shortened(mlp(kind=Dropped)))
    assert not is_shortened(shortened(mlp("relu")))
    assert not is_shortened(shortened(mlp("linear")))  # gives the tensor that it gets
    once = shortened(mlp())
    own = once.forward
    shorten_gated_mlps(once)
    assert once.forward is own


def test_trying_draws_no_number() -> None:
    module, before = mlp(), torch.get_rng_state()
    shorten_gated_mlps(module)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_gated_mlp_of_these_models_is_found(name: str, device: str) -> None:
    model: nn.Module = ARCHITECTURES[name].build().requires_grad_(False)
    model = model.to(device)
    shorten_gated_mlps(model)
    found = [module for module in model.modules() if type(module).__name__.endswith("MLP")]
    assert found
    assert all(map(is_shortened, found))
