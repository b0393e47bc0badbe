"""The closed form of RMSNorm's derivative is autograd's, and other norms are left alone."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from deltaw.model.rms_norm import shorten_derivatives
from tests.support.architectures import ARCHITECTURES

WIDTH = 6


def norm(kind: str, dtype: torch.dtype = torch.float64, eps: float = 1e-5) -> nn.Module:
    """A frozen norm with random weights."""
    kinds = {"llama": LlamaRMSNorm, "gemma": Gemma2RMSNorm, "torch": nn.RMSNorm, "layer": nn.LayerNorm}
    made: nn.Module = kinds[kind](WIDTH, eps=eps)
    for weight in made.parameters():
        nn.init.uniform_(weight, -2, 2, generator=torch.Generator().manual_seed(0))
    return made.to(dtype).requires_grad_(False)


def replaced(module: nn.Module) -> nn.Module:
    copy = deepcopy(module)
    shorten_derivatives(copy)
    return copy


def gradient(module: nn.Module, x: Tensor, error: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(module(x), x, error)
    return found


@pytest.mark.parametrize("kind", ["llama", "gemma", "torch"])
@pytest.mark.parametrize("eps", [1e-5, 0.3])
@given(
    values=arrays(float, (2, 3, WIDTH), elements=st.floats(-3, 3)),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 9),
)
def test_the_derivative_is_autograds(kind: str, eps: float, values: Tensor, size: float, seed: int) -> None:
    own = norm(kind, eps=eps)
    x = size * torch.as_tensor(values)
    error = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    expected = gradient(own, x, error)
    # All but torch's compute in float32 whatever they are given.
    scale = expected.abs().max().item() + error.abs().max().item() / max(size, eps**0.5)
    assert_close(gradient(replaced(own), x, error), expected, rtol=0, atol=(1e-12 if kind == "torch" else 1e-5) * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "offset"), [("llama", 0), ("gemma", 1), ("torch", 0)])
def test_the_output_stays_its_own_and_the_gradient_is_as_exact(kind: str, offset: int, dtype: torch.dtype) -> None:
    own, generator = norm(kind, dtype), torch.Generator().manual_seed(0)
    x, error = (torch.randn(50, WIDTH, generator=generator).to(dtype) for _ in range(2))
    assert torch.equal(replaced(own)(x), own(x))
    exact = nn.RMSNorm(WIDTH, eps=1e-5, dtype=torch.float64)
    nn.init.zeros_(exact.weight)
    exact.weight.data += own.get_parameter("weight").double() + offset
    right = gradient(exact, x.double(), error.double())
    ours, theirs = ((gradient(module, x, error) - right).norm() for module in (replaced(own), own))
    assert 0 < ours <= 2 * theirs  # in float32 either may round better


def test_it_keeps_its_input_alone() -> None:
    module, x = replaced(norm("llama", torch.bfloat16)), torch.zeros(8, WIDTH, dtype=torch.bfloat16).requires_grad_()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(x)
    assert [tensor.shape for tensor in kept] == [x.shape, (WIDTH,)]


def test_a_norm_that_learns_or_subtracts_a_mean_stays_autograds() -> None:
    layer = nn.LayerNorm(WIDTH, bias=False).requires_grad_(False)
    assert "forward" not in vars(replaced(layer))
    learning = replaced(norm("llama")).requires_grad_()
    assert learning(torch.randn(3, WIDTH, dtype=torch.float64)).sum().backward() is None
    assert learning.get_parameter("weight").grad is not None


def test_a_copy_reads_its_own_weight() -> None:
    first = replaced(norm("llama"))
    second = deepcopy(first)
    nn.init.zeros_(second.get_parameter("weight"))
    x = torch.ones(1, WIDTH, dtype=torch.float64)
    assert first(x).any()
    assert not second(x).any()
    assert not gradient(second, x, x).any()


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3", "olmo2", "t5"]
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_rms_norm_of_these_models_is_found(name: str, device: str) -> None:
    model: nn.Module = ARCHITECTURES[name].build().requires_grad_(False)
    model = model.to(device)
    shorten_derivatives(model)
    norms = [
        module
        for module in model.modules()
        if "RMSNorm" in type(module).__name__ or "T5LayerNorm" in type(module).__name__
    ]
    assert norms
    assert all("forward" in vars(module) for module in norms)
