"""The head of a classifier: the modules that turn the base's states into logits."""

from collections.abc import Callable, Iterable

from torch import nn
from transformers import PreTrainedModel

from deltaw.errors import UserError

Initialiser = Callable[[nn.Module], None]  # draws the weights of one module as its model draws them


def heads_of(model: PreTrainedModel, missing: Iterable[str]) -> dict[str, Initialiser | None]:
    """The modules that form a classifier's head, each with what draws its weights if the checkpoint lacks some.

    They are the modules outside of the base model, and a pooler inside it if the checkpoint has none.

    Args:
        model: a model for sequence classification.
        missing: names of the weights that its checkpoint lacks.

    Raises:
        UserError: the model has no base model, or the checkpoint lacks weights of the base model.
    """
    prefix = model.base_model_prefix
    if prefix not in dict(model.named_children()):
        raise UserError(f"{type(model).__name__} does not tell its head from its base model: give another base")
    outside = {name: False for name, child in model.named_children() if name != prefix and [*child.parameters()]}
    missing = list(missing)
    poolers = {name.partition(".pooler.")[0] + ".pooler": True for name in missing if ".pooler." in name}
    is_new = outside | poolers
    for name in missing:
        head = next((head for head in is_new if name.startswith(f"{head}.")), None)
        if head is None:
            raise UserError(
                f"{model.name_or_path} lacks weights of its base model, as {name}: give a complete checkpoint"
            )
        is_new[head] = True
    return {head: model._init_weights if new else None for head, new in is_new.items()}
