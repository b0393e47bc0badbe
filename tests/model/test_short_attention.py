"""Attention by plain products equals PyTorch's, up to bfloat16, and stands back where it brings nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from deltaw.model import short_attention
from deltaw.model.short_attention import LONGEST, attention


def attended(
    function: Any, module: nn.Module, dtype: torch.dtype, tokens: int, causal: bool, mask: Tensor | None = None
) -> list[Tensor]:
    """Output and gradients of two rows with four heads, two for keys and values."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, heads, tokens, 8, generator=generator).to(dtype).requires_grad_() for heads in (4, 2, 2)]
    output, _ = function(module, *parts, mask, is_causal=causal, scaling=0.3)
    return [output.detach(), *torch.autograd.grad(output.float().square().sum(), parts)]


def layer(training: bool = True) -> nn.Module:
    module = nn.Module().train(training)
    module.num_key_value_groups = 2  # type: ignore[assignment]
    return module


@pytest.mark.parametrize("kind", ["packed", "packed, to add", "padded"])
def test_products_heed_a_mask(kind: str) -> None:
    example = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [1] * 2])[:, None, None]
    seen = (example.mT == example).tril() if "packed" in kind else example == 0
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    exact = attended(sdpa_attention_forward, layer(), torch.float32, 11, True, seen)
    found = attended(attention, layer(), torch.bfloat16, 11, True, added if "add" in kind else seen)
    for one, other in zip(found, exact, strict=True):
        assert_close(one.float(), other, rtol=0, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize("added", [False, True])
def test_a_token_that_sees_nothing_gets_and_gives_nothing(added: bool) -> None:
    seen = torch.ones(2, 1, 11, 11, dtype=torch.bool)
    seen[0, :, 7] = seen[1, :, 2:5] = False
    mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf) if added else seen
    exact = attended(sdpa_attention_forward, layer(), torch.float32, 11, False, mask)
    found = attended(attention, layer(), torch.bfloat16, 11, False, mask)
    for one, other in zip(found, exact, strict=True):
        assert_close(one.float(), other, rtol=0, atol=0.02 * other.abs().max().item())
    output, of_queries, *_ = found
    assert torch.equal((output == 0).all(-1).all(-1), ~seen.any(-1)[:, 0])
    assert torch.equal((of_queries == 0).all(-1).all(1), ~seen.any(-1)[:, 0])


def test_the_lowest_number_of_float32_hides_a_token_in_bfloat16_too() -> None:
    hidden = torch.full((2, 1, 11, 11), torch.finfo(torch.float32).min).triu(1)
    exact = attended(sdpa_attention_forward, layer(), torch.float32, 11, False, hidden)
    found = attended(attention, layer(), torch.bfloat16, 11, False, hidden)
    for one, other in zip(found, exact, strict=True):
        assert_close(one.float(), other, rtol=0, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize("causal", [True, False])
def test_products_give_the_output_and_gradients_of_float32(causal: bool) -> None:
    exact = attended(sdpa_attention_forward, layer(), torch.float32, 11, causal)
    for one, other in zip(attended(attention, layer(), torch.bfloat16, 11, causal), exact, strict=True):
        assert one.dtype is torch.bfloat16
        assert_close(one.float(), other, rtol=0, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize(
    ("training", "dtype", "tokens", "by_products"),
    [
        (True, torch.bfloat16, LONGEST, True),
        (True, torch.bfloat16, LONGEST + 1, False),
        (True, torch.float32, 11, False),
        (False, torch.bfloat16, 11, False),
    ],
)
def test_products_are_for_short_rows_in_bfloat16_in_training(
    training: bool, dtype: torch.dtype, tokens: int, by_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = []

    def noted(*args: Any, **settings: Any) -> object:
        kernel.append(True)
        return sdpa_attention_forward(*args, **settings)

    monkeypatch.setattr(short_attention, "sdpa_attention_forward", noted)
    attended(attention, layer(training), dtype, tokens, causal=True)
    assert bool(kernel) is not by_products
