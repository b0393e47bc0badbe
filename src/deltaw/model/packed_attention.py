"""Packing: examples laid end to end in few rows, and an attention that keeps them apart.

Positions count from 0 in every example. Each token of padding has position 0: to the attention it is an example of
its own, and so it has itself to look at.

Shapes: R rows of a batch, T tokens of the longest.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deltaw.errors import UserError

# What a base is given beside the tokens of packed rows, from their positions.
Attention = Callable[[nn.Module, Int[Tensor, "R T"]], dict[str, Tensor]]


def by_positions(model: nn.Module, positions: Int[Tensor, "R T"]) -> dict[str, Tensor]:
    """Positions alone: most models of transformers then keep apart what restarts, in sliding windows as well."""
    return {"position_ids": positions}


def by_mask(model: nn.Module, positions: Int[Tensor, "R T"]) -> dict[str, Tensor]:
    """Positions, and a mask that is added to the scores: (R, 1, T, T), 0 where a token looks."""
    example = (positions == 0).cumsum(1)
    seen = (example[:, :, None] == example[:, None, :]).tril()[:, None]
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=positions.device).masked_fill(~seen, torch.finfo(dtype).min)
    return {"position_ids": positions, "attention_mask": mask}


def attention_of(model: PreTrainedModel) -> Attention:
    """What keeps the examples of a row apart in `model`, tried on a short one.

    Raises:
        UserError: nothing does.
    """
    windows = getattr(model.config.get_text_config(), "sliding_window", None)
    for attention in [by_positions] if windows else [by_positions, by_mask]:  # our mask would take the windows' place
        if _keeps_apart(model, attention):
            return attention
    raise UserError(
        f"{type(model).__name__} of {model.name_or_path} looks across the examples that share a row, so that "
        "data.packing=true would teach each to read its neighbours: give data.packing=false"
    )


@torch.no_grad()
def _keeps_apart(model: PreTrainedModel, attention: Attention) -> bool:
    """Whether the logits of a packed row are those of its examples alone, up to rounding."""
    examples = [[1, 2, 3], [3, 1, 2, 1], [0], [0]]  # the last as padding is
    ids = torch.tensor([[token for example in examples for token in example]])
    positions = torch.tensor([[n for example in examples for n in range(len(example))]])
    alone = torch.cat([model(input_ids=torch.tensor([example])).logits[0] for example in examples])
    try:
        together = model(input_ids=ids, **attention(model, positions)).logits[0]
    except (TypeError, ValueError, RuntimeError):  # a model that knows no such argument, or no mask of this shape
        return False
    mixed, error = model(input_ids=ids).logits[0], (together - alone).abs().max()
    rounding = torch.finfo(alone.dtype).eps ** 0.5 * alone.abs().max()  # which is wide in bfloat16
    return bool(error <= min(rounding, 0.1 * (mixed - alone).abs().max()))
