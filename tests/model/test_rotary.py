"""The gradient through rotary positions is autograd's, and functions that rotate in another way are left alone."""

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
from deltaw.model.rotary import NAME, rotate_back
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
    rotate_back(model)
    assert isinstance(getattr(code, NAME), partial)
    for one, other in zip(gradients(model), own, strict=True):
        if other is not None:
            assert_close(one, other, rtol=1e-6, atol=1e-7 * other.abs().max().item())


@pytest.mark.parametrize("settings", [{}, {"unsqueeze_dim": 2}])
def test_a_part_of_a_head_may_rotate_and_tokens_may_come_first(settings: dict[str, int]) -> None:
    own = modeling_qwen3_5.apply_rotary_pos_emb
    own = own.args[0] if isinstance(own, partial) else own
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 4, 8), (2, 3, 4, 8)] if settings else [(2, 4, 3, 8), (2, 2, 3, 8)]
    q, k, *errors = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [*shapes, *shapes])
    given = [q.requires_grad_(), k.requires_grad_()]
    angles = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64).repeat(1, 1, 2)
    right, found = (
        torch.autograd.grad(function(q, k, angles.cos(), angles.sin(), **settings), given, errors)
        for function in (own, partial(rotary._rotated, own))
    )
    for one, other in zip(found, right, strict=True):
        assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_own")
def test_a_function_is_replaced_once_and_one_that_pairs_neighbours_never(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, gptj = (ARCHITECTURES[name].build() for name in ("llama", "gptj"))
    monkeypatch.setattr(code_of(llama), NAME, getattr(code_of(llama), NAME))
    rotate_back(llama)
    first = getattr(code_of(llama), NAME)
    rotate_back(llama)
    rotate_back(gptj)
    assert getattr(code_of(llama), NAME) is first
    assert not isinstance(getattr(code_of(gptj), NAME), partial)
