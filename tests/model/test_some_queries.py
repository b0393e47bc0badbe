"""Attention for the queries of some tokens gives them what they get among all, and the same gradients."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from deltaw.model.some_queries import WORTHWHILE, attention, queries_at

ROWS, TOKENS = 3, 8
EXAMPLES = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 0, 0, 0, 0]])
SEEN = (EXAMPLES[:, None, :, None] == EXAMPLES[:, None, None, :]).tril()
MASKS = {
    "causal": None,
    "none": None,
    "packed": SEEN,
    "of all rows": SEEN[:1],
    "padding": (EXAMPLES < 2)[:, None, None, :],
    "to add": torch.zeros(SEEN.shape, dtype=torch.float64).masked_fill(~SEEN, torch.finfo(torch.float64).min),
    "of each head": SEEN.expand(-1, 4, -1, -1),
}


def attended(
    places: Tensor | None, mask: Tensor | None, causal: bool, keys: int = TOKENS, rows: int = ROWS, **settings: Any
) -> tuple[Tensor, list[Tensor]]:
    """The output of four heads, two for keys and values, and the gradients of a loss of some tokens' outputs."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, heads, length, 6) for heads, length in ((4, TOKENS), (2, keys), (2, keys))]
    parts = [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    query, key, value = parts
    with queries_at(places, ROWS, TOKENS, filler=7.0) if places is not None else nullcontext():
        output, _ = attention(layer(), query, key, value, mask, is_causal=causal, scaling=0.3, **settings)
    return output, parts


def layer() -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    return module


def gradients(output: Tensor, parts: list[Tensor], places: Tensor) -> list[Tensor]:
    loss = output.flatten(0, 1).index_select(0, places).square().sum()
    return list(torch.autograd.grad(loss, parts))


@pytest.mark.parametrize("kind", MASKS)
@given(some=st.sets(st.integers(0, ROWS * TOKENS - 1), min_size=1, max_size=5))
def test_some_queries_attend_as_among_all(kind: str, some: set[int]) -> None:
    places, mask = torch.tensor(sorted(some)), MASKS[kind]
    (found, parts), (right, same) = (attended(chosen, mask, kind == "causal") for chosen in (places, None))
    tokens = found.flatten(0, 1)
    assert found.shape == right.shape
    assert_close(tokens[places], right.flatten(0, 1)[places])
    others = torch.ones(len(tokens), dtype=torch.bool).index_fill(0, places, False)
    assert (tokens[others] == 7).all()
    for one, other in zip(gradients(found, parts, places), gradients(right, same, places), strict=True):
        assert_close(one, other, rtol=0, atol=1e-12)


def test_what_an_encoder_has_read_is_attended_to_by_some_queries() -> None:
    places, mask = torch.tensor([2, 9]), (torch.arange(5) < torch.tensor([5, 3, 4])[:, None])[:, None, None, :]
    for given_mask in (mask, None):
        found, right = (attended(chosen, given_mask, False, keys=5)[0].flatten(0, 1) for chosen in (places, None))
        assert_close(found[places], right[places])
        assert (found[0] == 7).all()


@pytest.mark.parametrize("most", [int(WORTHWHILE * TOKENS), int(WORTHWHILE * TOKENS) + 1])
def test_rows_of_which_nearly_all_are_asked_for_are_computed_whole(most: int) -> None:
    output, _ = attended(torch.arange(most), None, True)
    assert bool((output == 7).any()) is (most <= WORTHWHILE * TOKENS)


@pytest.mark.parametrize("other", [{"rows": ROWS + 1}, {"dropout": 0.5}])
def test_other_rows_and_special_attention_are_computed_whole(other: dict[str, Any]) -> None:
    output, _ = attended(torch.tensor([3]), None, True, **other)
    assert not (output == 7).any()


def test_the_places_of_another_device_are_not_read() -> None:
    with queries_at(torch.tensor([3], device="meta"), ROWS, TOKENS, filler=7.0):
        output, _ = attended(None, SEEN, True)
    assert not (output == 7).any()


def test_no_query_is_chosen_behind_the_block() -> None:
    with queries_at(torch.tensor([3]), ROWS, TOKENS, filler=7.0):
        pass
    output, (query, key, value) = attended(None, SEEN, True)
    right, _ = sdpa_attention_forward(layer(), query, key, value, SEEN, scaling=0.3)
    assert torch.equal(output, right)
