"""Rotary positions and gradients through them are the model's own; functions that rotate otherwise are left alone."""

import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import PreTrainedModel
from transformers.models.qwen3_5 import modeling_qwen3_5

from deltaw.model import rotary
from deltaw.model.names import block_of
from deltaw.model.rotary import NAME, shorten_rotations
from tests.support.architectures import ARCHITECTURES


def code_of(model: PreTrainedModel) -> ModuleType:
    return sys.modules[type(model).__module__]


@pytest.fixture
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every function as transformers wrote it, whatever has been loaded before."""
    for name, code in list(sys.modules.items()):
        if name.startswith("transformers.models.") and isinstance(found := vars(code).get(NAME), partial):
            monkeypatch.setattr(code, NAME, found.args[0])


def gradients(model: PreTrainedModel) -> list[Tensor]:
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    weights = [weight for name, weight in model.named_parameters() if block_of(name) and weight.dim() == 2]
    return [*torch.autograd.grad(model(input_ids=ids)[0].square().sum(), weights, allow_unused=True)]


@pytest.mark.usefixtures("_own")
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gemma2", "phi", "phi3", "olmo2", "gpt_neox", "falcon", "persimmon", "modernbert"]
)
def test_gradients_are_autograds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ARCHITECTURES[name].build(dtype=torch.float64)
    own, code = gradients(model), code_of(model)
    monkeypatch.setattr(code, NAME, getattr(code, NAME))  # so that the end of this test brings it back
    shorten_rotations(model)
    assert isinstance(getattr(code, NAME), partial)
    for one, other in zip(gradients(model), own, strict=True):
        if other is not None:
            assert_close(one, other, rtol=1e-6, atol=1e-7 * other.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("shapes", "turned", "settings"),
    [
        ([(2, 4, 3, 8), (2, 2, 3, 8)], 8, {}),
        ([(2, 3, 4, 8), (2, 3, 2, 8)], 8, {"unsqueeze_dim": 2}),
        ([(2, 4, 3, 8), (2, 2, 3, 8)], 4, {}),
    ],
    ids=["heads first", "tokens first", "a part of a head"],
)
def test_every_call_gives_what_the_function_itself_gives(
    shapes: list[tuple[int, ...]], turned: int, settings: dict[str, int], dtype: torch.dtype
) -> None:
    own = modeling_qwen3_5.apply_rotary_pos_emb
    own = own.args[0] if isinstance(own, partial) else own
    generator = torch.Generator().manual_seed(0)
    q, k, *errors = (torch.randn(shape, generator=generator).to(dtype) for shape in [*shapes, *shapes])
    given = [q.requires_grad_(), k.requires_grad_()]
    angles = torch.randn(2, 3, turned // 2, generator=generator).repeat(1, 1, 2)
    outcomes = []
    for function in (own, partial(rotary._rotated, own)):
        rotated = function(q, k, angles.cos().to(dtype), angles.sin().to(dtype), **settings)
        outcomes.append([*rotated, *torch.autograd.grad(rotated, given, errors)])
    for one, other in zip(*outcomes, strict=True):
        assert one.shape == other.shape and one.dtype is dtype and one.stride() == other.stride()
        assert_close(one, other, rtol=0, atol=1e-12 if dtype is torch.float64 else 0.03)


def test_what_a_function_is_given_in_another_way_it_gets() -> None:
    given: list[tuple[object, ...]] = []

    def own(*args: Tensor, **named: object) -> tuple[Tensor, Tensor]:
        given.append((*args[4:], *named.items()))
        return args[0], args[1]

    q, k, cos, sin = [torch.zeros(2, 4, 3, 8)] * 2 + [torch.zeros(2, 3, 8)] * 2
    rotary._rotated(own, q, k, cos, sin, 1)
    rotary._rotated(own, q, k, cos, sin, interleaved=False)
    rotary._rotated(own, q, k, cos=cos, sin=sin)
    rotary._rotated(own, q, k, cos, sin)
    rotary._rotated(own, q, k, cos.clone().requires_grad_(), sin)
    assert given == [(1,), (("interleaved", False),), (("cos", cos), ("sin", sin)), ()]


@pytest.mark.usefixtures("_own")
def test_a_function_is_replaced_once_and_one_that_pairs_neighbours_never(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, gptj = (ARCHITECTURES[name].build() for name in ("llama", "gptj"))
    monkeypatch.setattr(code_of(llama), NAME, getattr(code_of(llama), NAME))
    shorten_rotations(llama)
    first = getattr(code_of(llama), NAME)
    shorten_rotations(llama)
    shorten_rotations(gptj)
    assert getattr(code_of(llama), NAME) is first
    assert not isinstance(getattr(code_of(gptj), NAME), partial)
