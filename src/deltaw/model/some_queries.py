"""Attention for the queries of some tokens alone, on a CPU: a loss needs no others of the last layer.

What a token attends to there, no other token reads, and the loss reads the tokens before labels alone. A GPU's kernels
take all queries: they are fastest so, and the number of labels in a row would have to be read back from the device.

Shapes: R rows of a batch, T tokens of the longest, L tokens whose queries attend, Q the most of them in a row, H heads
of the queries, S keys, d the width of a head, e that of a value.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from deltaw.model import short_attention

WORTHWHILE = 0.75  # share of a row's tokens above which all attend: copying costs time too


class _Chosen(NamedTuple):
    """Tokens whose queries attend.

    Attributes:
        shape: R and T.
        places: of the tokens, among all R · T.
        tokens: of each row; a row that has fewer than Q ends in its first token, for nobody.
        slots: where each place is among the R · Q tokens.
        filler: what other tokens get.
    """

    shape: tuple[int, int]
    places: Int[Tensor, " L"]
    tokens: Int[Tensor, "R Q"]
    slots: Int[Tensor, " L"]
    filler: float


_chosen: ContextVar[_Chosen | None] = ContextVar("_chosen", default=None)


@contextmanager
def queries_at(places: Int[Tensor, " L"], rows: int, length: int, filler: float = 0.0) -> Iterator[None]:
    """In the block, `attention` of `rows` of this `length` may give `filler` to all tokens but those at `places`.

    Args:
        places: among all R · T, in rising order.
        rows: R.
        length: T.
        filler: what other tokens get.
    """
    before = _chosen.set(_choice(places, rows, length, filler) if places.device.type == "cpu" else None)
    try:
        yield
    finally:
        _chosen.reset(before)


def _choice(places: Int[Tensor, " L"], rows: int, length: int, filler: float) -> _Chosen | None:
    """The tokens at `places`; None where they are nearly all tokens of a row."""
    row, token = np.divmod(places.numpy(), length)
    counts = np.bincount(row, minlength=rows)
    if not len(places) or (most := int(counts.max())) > WORTHWHILE * length:
        return None
    slots = row * most + np.arange(len(row)) - (counts.cumsum() - counts)[row]
    tokens = np.zeros((rows, most), row.dtype)
    tokens.flat[slots] = token
    return _Chosen((rows, length), places, torch.from_numpy(tokens), torch.from_numpy(slots), filler)


def use_own_attention() -> None:
    """Let the models of transformers that attend by `scaled_dot_product_attention` attend by `attention`."""
    AttentionInterface.register("sdpa", attention)


def attention(
    module: nn.Module,
    query: Float[Tensor, "R H T d"],
    key: Float[Tensor, "R _ S d"],
    value: Float[Tensor, "R _ S e"],
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Float[Tensor, "R T H e"], None]:
    """Attention as transformers calls it: within `queries_at`, of some tokens alone."""
    chosen = _chosen.get()
    if chosen is None or (len(query), query.shape[2]) != chosen.shape or short_attention.is_special(settings):
        return short_attention.attention(module, query, key, value, attention_mask, **settings)
    at = chosen.tokens[:, None, :, None]
    if attention_mask is not None:
        attention_mask = attention_mask.expand(-1, -1, query.shape[2], -1).take_along_dim(at, 2)
    elif short_attention.is_causal(module, settings):
        attention_mask = torch.arange(key.shape[2]) <= at
    some = query.take_along_dim(at, 2)
    attended, _ = short_attention.attention(module, some, key, value, attention_mask, **settings)
    found = attended.flatten(0, 1).index_select(0, chosen.slots)
    everywhere = found.new_full((query.shape[0] * query.shape[2], *found.shape[1:]), chosen.filler)
    return everywhere.index_copy(0, chosen.places, found).view(*chosen.shape, *found.shape[1:]), None
