"""Attention by plain products, where PyTorch's kernel is slow: short rows in bfloat16 on a CPU.

There the kernel behind `scaled_dot_product_attention` takes 5 times as long as plain products for 48 tokens, 4 times
for 106, 3 times for 160 and about as long for 512 (forward and backward, 8 rows, 9 heads of width 64; one core of an
Intel Xeon, torch 2.13.0). A GPU's kernels are left to PyTorch.

Shapes: R rows, H heads of the queries, T tokens, d the width of a head.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

LONGEST = 256  # tokens: the weights, which products keep, are no larger than q, k, v and output of heads 64 wide


def use_products_for_short_rows() -> None:
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
    """Attention as transformers calls it; by plain products in training, if rows are short.

    A pass that computes activations again, to save memory, attends in the same way as the first.
    """
    if not module.training or not _is_slow(query, key) or _is_special(settings):
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return attended
    groups = query.shape[1] // key.shape[1]
    q, k, v = (part.flatten(0, 1) for part in (query, repeat_kv(key, groups), repeat_kv(value, groups)))
    causal = settings.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scaling = settings.get("scaling") or query.shape[-1] ** -0.5
    blind = None
    if attention_mask is not None:
        blind = _sees_nothing(attention_mask)
        unseen = _added(attention_mask, query.dtype).expand(*query.shape[:2], -1, -1).flatten(0, 1)
    elif causal:
        unseen = q.new_full((q.shape[1], q.shape[1]), -torch.inf).triu(1)
    else:
        unseen = q.new_zeros(1)
    weights = torch.baddbmm(unseen, q, k.mT, alpha=scaling).softmax(-1)
    output = torch.bmm(weights, v).unflatten(0, query.shape[:2])
    if blind is not None:
        output = output.masked_fill(blind, 0)
    return output.transpose(1, 2).contiguous(), None


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to the scores, finite even where a token attends to nothing, so that its weights are no NaN."""
    lowest = torch.finfo(dtype).min
    if mask.dtype is torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest)
    return mask.to(dtype).clamp(min=lowest)  # float32's lowest number is an infinity in bfloat16


def _sees_nothing(mask: Tensor) -> Tensor:
    """Where a token attends to nothing, as padding does outside of a window: there PyTorch's kernel gives zeros."""
    return ~(mask if mask.dtype is torch.bool else mask > -torch.inf).any(-1, keepdim=True)


def _is_slow(query: Tensor, key: Tensor) -> bool:
    tokens = query.shape[2]
    return query.device.type == "cpu" and query.dtype is torch.bfloat16 and tokens == key.shape[2] <= LONGEST


def _is_special(settings: dict[str, Any]) -> bool:
    return bool(settings.get("dropout")) or any(
        settings.get(name) is not None for name in ("softcap", "position_bias", "cache")
    )
