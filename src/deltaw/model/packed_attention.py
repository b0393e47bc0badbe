"""Attention for packed rows, which does not cross the examples that share a row.

Positions count from 0 in each example. Each token of padding has position 0 too, so that it is an example of its own
and attends to itself.

Shapes: R rows of a batch, T tokens of the longest.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deltaw.model.trial import CANNOT, agree

# From a model and the positions of packed rows to the inputs that the model needs beside the tokens.
Attention = Callable[[nn.Module, Int[Tensor, "R T"]], dict[str, Tensor]]


def by_positions(model: nn.Module, positions: Int[Tensor, "R T"]) -> dict[str, Tensor]:
    """Positions alone: most models of transformers attend within a run of rising positions, in sliding windows too."""
    return {"position_ids": positions}


def by_mask(model: nn.Module, positions: Int[Tensor, "R T"]) -> dict[str, Tensor]:
    """Positions, and a mask (R, 1, T, T) to add to the scores: 0 where a token attends, else the lowest number."""
    example = (positions == 0).cumsum(1)
    seen = (example[:, :, None] == example[:, None, :]).tril()[:, None]
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=positions.device).masked_fill(~seen, torch.finfo(dtype).min)
    return {"position_ids": positions, "attention_mask": mask}


def attention_of(model: PreTrainedModel) -> Attention | None:
    """The first attention that keeps the examples of a row apart in `model`, found by trying a short row, or None."""
    windows = getattr(model.config.get_text_config(), "sliding_window", None)
    tried = [by_positions] if windows else [by_positions, by_mask]  # a mask would replace the windows
    return next((attention for attention in tried if _keeps_apart(model, attention)), None)


@torch.no_grad()
def _keeps_apart(model: PreTrainedModel, attention: Attention) -> bool:
    """Whether the logits of a packed row equal the logits of its examples alone, up to rounding."""
    examples = [[1, 2, 3], [3, 1, 2, 1], [0], [0]]  # the last two are like padding
    ids = torch.tensor([[token for example in examples for token in example]])
    positions = torch.tensor([[n for example in examples for n in range(len(example))]])
    alone = torch.cat([model(input_ids=torch.tensor([example])).logits[0] for example in examples])
    try:
        packed = model(input_ids=ids, **attention(model, positions)).logits[0]
    except CANNOT:  # the model takes no such argument, or no mask of this shape
        return False
    return agree(packed, alone, wrong=model(input_ids=ids).logits[0])
