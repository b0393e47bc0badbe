"""Products by oneDNN are PyTorch's up to rounding, where they are taken, and oneDNN keeps little code."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from deltaw.model import products
from deltaw.model.gated_mlp import shorten_gated_mlps
from deltaw.model.products import FrozenLinear, add_product, use_onednn

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN")

Layer = TypeVar("Layer", bound=nn.Module)

MANY_SHAPES = """
import torch
from deltaw.model import products

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 10**6

products.onednn_is_faster = lambda: True
layer = torch.nn.Linear(256, 256).requires_grad_(False)
products.use_onednn(layer)
x = torch.zeros(1600, 256)
for tokens in range(1500, 1600):
    layer(x[:tokens])
before = megabytes()
for tokens in range(1100, 1400):
    layer(x[:tokens])
print(megabytes() - before)
"""


@pytest.fixture(autouse=True, scope="module")
def faster() -> Iterator[None]:
    """As on a processor on which oneDNN is faster; the environment stays as it is."""
    with patch.object(products, "onednn_is_faster", lambda: True), patch.dict(os.environ):
        yield


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.run: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.run[func.name()] += 1
        return func(*args, **(kwargs or {}))

    @property
    def by_onednn(self) -> int:
        return self.run["mkldnn::_linear_pointwise"]


def layer(d_in: int = 256, d_out: int = 256, bias: bool = False) -> nn.Linear:
    """A frozen one with random weights."""
    made = nn.Linear(d_in, d_out, bias)
    for weight in made.parameters():
        nn.init.uniform_(weight, -1, 1, generator=torch.Generator().manual_seed(weight.numel()))
    return made.requires_grad_(False)


def with_onednn(module: Layer) -> Layer:
    copied = deepcopy(module)
    use_onednn(copied)
    return copied


@given(
    tokens=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    widths=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
    strided=st.booleans(),
    seed=st.integers(0, 9),
)
def test_output_and_gradient_are_pytorchs(
    tokens: list[int], widths: tuple[int, int], bias: bool, strided: bool, seed: int
) -> None:
    d_in, d_out = widths
    own, generator = layer(d_in, d_out, bias), torch.Generator().manual_seed(seed)
    x = torch.randn(*tokens, d_in, generator=generator)
    error = torch.randn(d_out, generator=generator).expand(*tokens, -1)
    if strided:
        x = x.transpose(0, -2).contiguous().transpose(0, -2)
        error = error + torch.zeros(*tokens, d_out)
    with patch.multiple(products, _TOKENS=1, _VALUES=1), Operators() as operators:
        ours = with_onednn(own)
        y, dx = outcome(ours, x, error)
    right = outcome(own.double(), x.double(), error.double())
    assert operators.by_onednn == 2
    assert_close((y.double(), dx.double()), right, rtol=1e-5, atol=1e-5)


def outcome(module: nn.Module, x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer gives, and the gradient of its input."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    return y, torch.autograd.grad(y, x, error)[0]


@pytest.mark.parametrize("count", [1, 2000])
def test_a_product_is_added_in_place(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, y = (
        torch.randn(*shape, generator=generator) for shape in [(2, count, 256), (300, 256), (2, count, 300)]
    )
    right = y.double() + x.double() @ weight.double().t()
    with Operators() as operators:
        add_product(y, x, weight)
    assert operators.by_onednn == (count > 1)
    assert_close(y.double(), right, rtol=1e-5, atol=1e-4)


def many(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(2, 1000, 256, dtype=dtype)


def test_what_is_not_for_onednn_is_pytorchs_to_the_bit() -> None:
    learning, biased = layer().requires_grad_(), layer(bias=True)
    biased.bias.requires_grad_()
    cases = [(layer(), many()[:, :500]), (layer(256, 255), many()), (layer().double(), many(torch.float64))]
    cases += [(learning, many()), (biased, many())]
    for own, x in cases:
        with Operators() as operators:
            found = with_onednn(own)(x)
        assert operators.by_onednn == 0
        assert torch.equal(found, own(x))
    ours = with_onednn(learning)
    ours(many()).sum().backward()
    assert ours.get_parameter("weight").grad is not None
    with torch.autocast("cpu", torch.bfloat16), Operators() as operators:
        assert with_onednn(layer())(many()).dtype is torch.bfloat16
    assert operators.by_onednn == 0


def test_shapes_alone_are_those_of_the_product() -> None:
    ours = with_onednn(layer(256, 300)).to("meta")
    assert ours(many().to("meta")).shape == (2, 1000, 300)


def test_large_layers_in_float32_are_changed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(nn.Linear):
        pass

    model = nn.ModuleDict(
        {"large": layer(), "small": layer(8, 8), "in_bfloat16": layer().bfloat16(), "other": Other(256, 256)}
    )
    found = {name: type(module) for name, module in with_onednn(model).items()}
    assert found == {"large": FrozenLinear, "small": nn.Linear, "in_bfloat16": nn.Linear, "other": Other}
    assert with_onednn(model).state_dict().keys() == model.state_dict().keys()
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    assert type(with_onednn(model)["large"]) is nn.Linear


def test_all_products_of_a_gated_mlp_are_onednns() -> None:
    own = LlamaMLP(LlamaConfig(hidden_size=256, intermediate_size=688, num_attention_heads=2)).requires_grad_(False)
    ours = deepcopy(own)
    shorten_gated_mlps(ours)
    use_onednn(ours)
    x = torch.randn(2, 600, 256, generator=torch.Generator().manual_seed(0))
    error = x.flip(0)
    with Operators() as operators:
        found = outcome(ours, x, error)
    assert operators.by_onednn == 6 and not operators.run["aten::mm"] + operators.run["aten::addmm"]
    assert_close(found, outcome(own, x, error), rtol=1e-4, atol=1e-6)


def test_what_the_user_lets_onednn_keep_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    use_onednn(layer())
    assert (os.environ["LRU_CACHE_CAPACITY"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) == ("7", "32")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_code_of_few_shapes_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", MANY_SHAPES], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 50  # of 300 shapes; with PyTorch's defaults, several hundred
