"""The layers of a model that LoRA adapts, and what each projects."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import nn

from deltaw.errors import UserError
from deltaw.model.names import (
    ALL_LINEAR,
    ARCHITECTURES,
    OUTPUTS,
    PROJECTIONS,
    READS_NO_ROWS,
    attention_names,
    block_of,
    ends_in,
    layer_of,
    linear_layers,
)
from deltaw.run.places import sense


def projections(
    model: nn.Module, wanted: Sequence[str] = ("q", "v"), names: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """The linear layers of `model` that LoRA adapts: module name → projection, in the order of the model.

    For each of q, k and v that is wanted, an attention module has one such projection. Some have none: attention that
    takes k and v from another layer, and the layers of a hybrid model that mix tokens in another way. Of a model that
    also sees or hears, the part that reads text is adapted. Layers inside experts are never adapted, because the
    router mixes tokens of different arms, nor are layers that read positions instead of tokens.

    Args:
        model: the base, not yet adapted; its fused layers are split.
        wanted: q, k, v, o, or endings of names, as gate_proj; or "all-linear" for every linear layer inside the
            numbered layers.
        names: how the name of a projection's layer ends, as `{"q": "q_proj", "v": "v_proj"}`. A projection without
            one has the name in `ARCHITECTURES`, or any name in there if the model is unknown.

    Raises:
        UserError: no attention module of a kind has a wanted projection, or one has several, or no layer has a wanted
            name; the message lists the names that exist.
    """
    linear = [name for name in _linear_layers(model) if not READS_NO_ROWS.search(name)]
    everything = ALL_LINEAR in wanted
    endings = _endings(model, names or {})
    sites = {name: site for name in linear if (site := _site(name, endings))}
    letters = [letter for letter in "qkv" if letter in wanted or (everything and letter in "qv")]
    _check(model, sites.values(), letters, endings)
    names_of = {module: sites[module].letter if module in sites else module.rpartition(".")[2] for module in linear}
    found = {module for module, site in sites.items() if site.letter in letters}
    for name in wanted:
        if name not in ("q", "k", "v", ALL_LINEAR):
            found |= _modules_called(name, names_of, model)
    return {module: name for module, name in names_of.items() if everything or module in found}


def layers_beside(model: nn.Module, modules: Iterable[str]) -> set[str]:
    """Names of all layers in the lists that hold the layers of `modules`; a hybrid model has some without attention."""
    lists = {block_of(module).rpartition(".")[0] for module in modules}
    blocks = {block_of(name) for name in linear_layers(model)}
    return {block for block in blocks if block.rpartition(".")[0] in lists}


def _linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers inside the numbered layers, of those that read text and are called."""
    tower = _text_tower(model)
    return [
        name
        for name in linear_layers(model)
        if name.startswith(tower) and not sense(block_of(name)) and not _is_state_space(model, name)
    ]


def _is_state_space(model: nn.Module, module: str) -> bool:
    """Whether a linear layer is part of a Mamba mixer, whose kernels read its weight without calling it."""
    mixer = model.get_submodule(module.rpartition(".")[0])
    return hasattr(mixer, "A_log") and hasattr(mixer, "D")


def _text_tower(model: nn.Module) -> str:
    """What the names of the modules that read text begin with; "" in a model that does nothing else."""
    config: Any = getattr(model, "config", None)
    if config is None or config.is_encoder_decoder or config.get_text_config() is config:
        return ""
    tower = model.get_decoder()  # type: ignore[operator]
    return next((f"{name}." for name, module in model.named_modules() if name and module is tower), "")


def _modules_called(name: str, names_of: Mapping[str, str], model: nn.Module) -> set[str]:
    """The modules whose projection is `name`, or whose own names end in it."""
    modules = {module for module, own_name in names_of.items() if own_name == name or ends_in(module, (name,))}
    if not modules:
        raise UserError(
            f"arms.projections has {name!r}, and {type(model).__name__} has no linear layer of that name in its "
            f"numbered layers: choose from {sorted(set(names_of.values()))}"
        )
    return modules


@dataclass(frozen=True)
class _Site:
    letter: str
    layer: int
    attention: str  # name of its module without numbers, as "model.layers.self_attn"


@dataclass(frozen=True)
class _Ending:
    """What the ending of a layer's name means."""

    attentions: tuple[str, ...]  # how the name of the attention module around it ends; "" for any
    letter: str


def _endings(model: nn.Module, names: Mapping[str, str | None]) -> dict[str, _Ending]:
    """Ending of a layer's name → its meaning: from the table, overridden by `names`."""
    given = {name: _Ending(("",), letter) for letter, name in names.items() if name}
    if known := attention_names(model):
        endings = {getattr(known, letter): _Ending(known.modules, letter) for letter in "qkvo"}
    else:
        endings = {name: _Ending(("",), letter) for name, letter in PROJECTIONS.items()}
        endings |= dict.fromkeys(OUTPUTS, _Ending(("",), "o"))
    overridden = {ending.letter for ending in given.values()}
    return {name: ending for name, ending in endings.items() if ending.letter not in overridden} | given


def _site(module: str, endings: Mapping[str, _Ending]) -> _Site | None:
    for name, ending in endings.items():
        attention = module.removesuffix(name).removesuffix(".")
        if ends_in(module, (name,)) and (ending.attentions == ("",) or ends_in(attention, ending.attentions)):
            return _Site(ending.letter, layer_of(module) or 0, re.sub(r"\.\d+(?=\.|$)", "", attention))
    return None


def _check(model: nn.Module, sites: Iterable[_Site], letters: Sequence[str], endings: Mapping[str, _Ending]) -> None:
    """Refuse a model without a wanted letter, and an attention module with several or, unlike its kind, with none."""
    layers = sorted(
        {layer for name, child in model.named_modules() if _has_weights(child) and (layer := layer_of(name))}
    )
    if letters and not layers:
        raise UserError(
            f"{type(model).__name__} has no numbered layers with q and v under the names {sorted(endings)}; "
            "give them by model.projections.q= and model.projections.v="
        )
    counts = Counter(sites)
    has = {(site.attention, site.letter) for site in counts}  # somewhere in the model
    places = sorted({(site.layer, site.attention) for site in counts if site.letter != "o"}) or [(layers[0], "")]
    for (layer, attention), letter in product(places if letters else [], letters):
        count = counts[_Site(letter, layer, attention)]
        if count > 1 or (count == 0 and (attention, letter) not in has):
            names = sorted(name for name, ending in endings.items() if ending.letter == letter)
            raise UserError(
                f"layer {layer} of {type(model).__name__} has {count} modules for {letter!r} under the names "
                f"{names}{f' in {attention}' if attention else ''}; {_children(model, layer)}: "
                f"{_advice(letter)} (a layer that fuses q, k and v can be adapted in "
                f"{', '.join(sorted(name for name, row in ARCHITECTURES.items() if row.fused))} alone)"
            )


def _advice(letter: str) -> str:
    """The setting to give: q and v can be named there, other projections are wanted by their own names."""
    if letter in ("q", "v"):
        return f"give the right one by model.projections.{letter}=, or what else to adapt by arms.projections="
    return f"give the right one by its own name in place of {letter!r} in arms.projections="


def _children(model: nn.Module, layer: int) -> str:
    """The matrices in the attention module of a layer, or in the whole layer if no module is named so."""
    inside = [(name, child) for name, child in model.named_modules() if layer_of(name) == layer]
    matrices = [
        name
        for name, child in inside
        if (weight := getattr(child, "weight", None)) is not None and getattr(weight, "ndim", 0) == 2
    ]
    for name, _ in inside:
        held = sorted(matrix[len(name) + 1 :] for matrix in matrices if matrix.startswith(f"{name}."))
        if "att" in name.rpartition(".")[2].lower() and held:
            return f"{name} holds {held}"
    return f"it holds {sorted({name.rpartition('.')[2] for name in matrices})}"


def _has_weights(child: nn.Module) -> bool:
    return any(True for _ in child.parameters(recurse=False))
