"""The head of a classifier: what turns the base's states into logits, a copy of it for every arm."""

from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from deltaw.errors import UserError

Initialiser = Callable[[nn.Module], None]  # draws one module's own weights, as the model does


class ArmsHead(nn.Module):
    """A copy of a module for each of K arms: block k of the batch sees copy k alone. All are trained, in float32.

    Args:
        module: what is copied.
        seeds: one for each arm; its copy's weights are drawn from it, whichever other arms are there.
        draw: draws them; None keeps those of `module`.
    """

    def __init__(self, module: nn.Module, seeds: list[int], draw: Initialiser | None):
        super().__init__()
        self.arms = nn.ModuleList(deepcopy(module).float().requires_grad_(True) for _ in seeds)
        for copy, seed in zip(self.arms, seeds, strict=True):
            if draw:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    copy.apply(draw)

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        # Rows that are no multiple of K come from those alone who have no use for what a head makes of them.
        blocks = zip(x.chunk(len(self.arms)), self.arms, strict=False)
        return torch.cat([copy(x_k.to(next(copy.parameters()).dtype)) for x_k, copy in blocks])


def heads_of(model: PreTrainedModel, missing: Iterable[str]) -> dict[str, Initialiser | None]:
    """The modules of a classifier that are its head, each with what draws it if the checkpoint lacks weights of it.

    They are those outside of the base model, and a pooler within it that the checkpoint does not have.

    Args:
        model: a model for sequence classification.
        missing: names of the weights that its checkpoint lacks.

    Raises:
        UserError: the model has no base model, or other weights are missing.
    """
    prefix = model.base_model_prefix
    if prefix not in dict(model.named_children()):
        raise UserError(f"{type(model).__name__} does not tell its head from its base model: give another base")
    outside = {name: False for name, child in model.named_children() if name != prefix and [*child.parameters()]}
    missing = list(missing)
    poolers = {name.partition(".pooler.")[0] + ".pooler": True for name in missing if ".pooler." in name}
    heads = outside | poolers
    for name in missing:
        head = next((head for head in heads if name.startswith(f"{head}.")), None)
        if head is None:
            raise UserError(f"{model.name_or_path} lacks weights of its base model, as {name}: give a whole model")
        heads[head] = True
    return {head: model._init_weights if fresh else None for head, fresh in heads.items()}
