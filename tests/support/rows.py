"""Rows of tokens for tiny models, and what the models make of them."""

import torch
from transformers import PreTrainedModel


def inputs(model: PreTrainedModel, tokens: int, repeats: int = 1) -> dict[str, torch.Tensor]:
    """Two rows of tokens, none of them padding, `repeats` times."""
    ids = 3 + torch.arange(2 * tokens).view(2, tokens) * 7 % 290
    ids = ids.repeat(repeats, 1)
    return {"input_ids": ids} | ({"decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else {})


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: int, repeats: int = 1) -> torch.Tensor:
    """Of those rows."""
    rows = inputs(model, tokens, repeats)
    out: torch.Tensor = model(**rows, use_cache=False).logits if model.can_generate() else model(**rows).logits
    return out
