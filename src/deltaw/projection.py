"""Where the q and v projections of a transformer live.

The one module that knows names inside transformers' models. It imports none of them, so the analysis can use it.
"""

import re
from collections.abc import Mapping

from torch import nn

from deltaw.cli import UserError

# The last part of a module's name, for models that keep q and v in linear layers of their own.
PROJECTIONS = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "query": "q",
    "key": "k",
    "value": "v",
    "query_proj": "q",
    "key_proj": "k",
    "value_proj": "v",
    "q_lin": "q",
    "k_lin": "k",
    "v_lin": "v",
    "q": "q",
    "k": "k",
    "v": "v",
}


def layer_of(module: str) -> int | None:
    """Layer of a module, counted from 1 as in the paper: the first whole number in its dotted name, plus one."""
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(number[1]) + 1 if number else None


def projections(model: nn.Module, names: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The linear layers of `model` that LoRA adapts: module name → projection, exactly one q and one v a layer.

    Args:
        model: the base, not yet adapted.
        names: the last part of the module's name for a projection, as `{"q": "q_proj", "v": "v_proj"}`; for one
            that is not given, whatever `PROJECTIONS` knows.

    Raises:
        UserError: a layer has no or several q or v; the message lists what its attention holds.
    """
    given = {name: letter for letter, name in (names or {}).items() if name}
    letters = {name: letter for name, letter in PROJECTIONS.items() if letter not in given.values()} | given
    found = {
        module: letters[module.rpartition(".")[2]]
        for module, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and letters.get(module.rpartition(".")[2]) in ("q", "v")
    }
    sites = [(layer_of(module), letter) for module, letter in found.items()]
    layers = {layer for module, child in model.named_modules() if _has_weights(child) and (layer := layer_of(module))}
    for layer in sorted(layers):
        for letter in ("q", "v"):
            if (count := sites.count((layer, letter))) != 1:
                raise UserError(
                    f"layer {layer} of {type(model).__name__} has {count} modules for {letter!r} under the names "
                    f"{sorted(name for name in letters if letters[name] == letter)}; it holds "
                    f"{_linear_names(model, layer)}: give the right one by model.projections.{letter}= "
                    "(a layer that fuses q, k and v cannot be adapted yet)"
                )
    if not found:
        raise UserError(
            f"{type(model).__name__} has no numbered layers with q and v under the names {sorted(letters)}; "
            "give them by model.projections.q= and model.projections.v="
        )
    return found


def _has_weights(child: nn.Module) -> bool:
    return any(True for _ in child.parameters(recurse=False))


def _linear_names(model: nn.Module, layer: int) -> list[str]:
    return sorted(
        {
            name.rpartition(".")[2]
            for name, child in model.named_modules()
            if layer_of(name) == layer and getattr(child, "weight", None) is not None and child.weight.ndim == 2
        }
    )
