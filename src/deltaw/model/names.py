"""Where the q, k and v projections of a transformer live.

The one module that knows names inside transformers' models. It imports none of them, so the analysis can use it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import nn

from deltaw.errors import UserError

ALL_LINEAR = "all-linear"  # every linear layer inside the numbered layers: not embeddings, not heads


@dataclass(frozen=True)
class Attention:
    """Where one architecture has its projections.

    Attributes:
        modules: how the names of its attention modules end.
        q, k, v, o: names below an attention module; `o` is the layer behind attention.
        fused: name below an attention module of the layer that holds q, k and v in one, if they share one.
    """

    modules: tuple[str, ...]
    q: str
    k: str
    v: str
    o: str
    fused: str | None = None


def _apart(modules: str, q: str, k: str, v: str, o: str) -> Attention:
    return Attention(tuple(modules.split()), q, k, v, o)


def _in_one(module: str, fused: str, o: str) -> Attention:
    """Of a fused layer, under the names that it has once it is split: see `deltaw.model.split`."""
    return Attention((module,), f"{fused}.q_proj", f"{fused}.k_proj", f"{fused}.v_proj", o, fused)


_LLAMA = _apart("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")
_BERT = _apart("attention", "self.query", "self.key", "self.value", "output.dense")

# By `model_type`. The rows of the fused layers are `fused_layout`'s.
ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "olmo2": _LLAMA,
    "phi": _apart("self_attn", "q_proj", "k_proj", "v_proj", "dense"),
    "phi3": _in_one("self_attn", "qkv_proj", "o_proj"),
    "opt": _apart("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    "gpt2": _in_one("attn", "c_attn", "c_proj"),
    "gpt_neo": _apart("attn.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
    "gptj": _apart("attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    "gpt_neox": _in_one("attention", "query_key_value", "dense"),
    "gpt_neox_japanese": _in_one("attention", "query_key_value", "dense"),
    "gpt_bigcode": _in_one("attn", "c_attn", "c_proj"),
    "codegen": _in_one("attn", "qkv_proj", "out_proj"),
    "bloom": _in_one("self_attention", "query_key_value", "dense"),
    "falcon": _in_one("self_attention", "query_key_value", "dense"),
    "persimmon": _in_one("self_attn", "query_key_value", "dense"),
    "mpt": _in_one("attn", "Wqkv", "out_proj"),
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": _apart("attention", "self.query_proj", "self.key_proj", "self.value_proj", "output.dense"),
    "distilbert": _apart("attention", "q_lin", "k_lin", "v_lin", "out_lin"),
    "modernbert": _in_one("attn", "Wqkv", "Wo"),
    "t5": _apart("SelfAttention EncDecAttention", "q", "k", "v", "o"),
    "bart": _apart("self_attn encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
}

# What the table's names mean in a model that is not in it, or is not known: an adapter does not tell its architecture.
PROJECTIONS = {
    getattr(names, letter).rpartition(".")[2]: letter for names in ARCHITECTURES.values() for letter in "qkv"
}
# With the attention's own name where that of the layer alone says little: BERT, for one, has three that end in "dense".
_OUTPUTS = tuple(
    {
        f"{module}.{names.o}" if names.o.rpartition(".")[2] in ("dense", "c_proj", "Wo") else names.o: None
        for names in ARCHITECTURES.values()
        for module in names.modules
    }
)
_FUSED = (*{names.fused: None for names in ARCHITECTURES.values() if names.fused}, "qkv", "qkv_linear", "att_proj")

# The endings under which it holds all rows of q, then of k, then of v, whatever the model, if each is as wide as d_in.
_IN_THIRDS = ("Wqkv", "qkv", "qkv_linear", "att_proj", "self_attn.qkv_proj")

# Layers of an expert, and those of DeBERTa that read its table of relative positions and no tokens.
_READS_NO_ROWS = re.compile(r"\.experts\.\d+\.|\.pos_(key|query)_proj$")

# A method of DeBERTa's attention modules that gives q and k its table of relative positions, one for all rows.
POSITIONS = "disentangled_attention_bias"


def layer_of(module: str) -> int | None:
    """Layer of a module, counted from 1 as in the paper: the first whole number in its dotted name, plus one."""
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(number[1]) + 1 if number else None


def block_of(module: str) -> str:
    """Name of the numbered layer that a module is in, as "model.layers.3" for its q_proj."""
    found = re.match(r"(?:.*?\.)??\d+(?=\.|$)", module)
    return found[0] if found else ""


def projection_of(module: str) -> str:
    """The projection of a module: "q", "k", "v", "o", or for any other the last part of its name."""
    name = module.rpartition(".")[2]
    return "o" if _ends_in(module, _OUTPUTS) else PROJECTIONS.get(name, name)


def is_fused(module: str) -> bool:
    """Whether a module of this name holds q, k and v in one."""
    return _ends_in(module, _FUSED)


def is_conv1d(layer: nn.Module) -> bool:
    """Whether this is transformers' Conv1D: a linear layer that stores its weight as (d_in, d_out).

    One in 4 bits is an nn.Linear to who calls it, and a Conv1D still in the base's file and to PEFT.
    """
    return getattr(layer, "source_cls", type(layer)).__name__ == "Conv1D"


def is_4bit(layer: nn.Module) -> bool:
    """Whether this is bitsandbytes' Linear4bit: an nn.Linear whose weight is a column of packed bytes."""
    return type(layer).__name__ == "Linear4bit"


@dataclass(frozen=True)
class Fused:
    """How a layer that fuses q, k and v lays out the rows of its weight, that as (d_out, d_in), and of its B.

    Attributes:
        blocks: the rows are so many equal blocks.
        widths: rows of each projection in a block, in their order there.
        transposed: the layer stores (d_in, d_out), as Conv1D does.
    """

    blocks: int
    widths: dict[str, int]
    transposed: bool

    @property
    def d_out(self) -> int:
        return self.blocks * sum(self.widths.values())

    @property
    def rows(self) -> dict[str, tuple[range, ...]]:
        """Projection → its rows of the d_out."""
        rows, offset = {}, 0
        for letter, width in self.widths.items():
            starts = range(offset, self.d_out, self.d_out // self.blocks)
            joined = [range(offset, offset + width)] if self.blocks == 1 else [range(s, s + width) for s in starts]
            rows[letter] = tuple(joined)
            offset += width
        return rows


def fused_layout(module: str, d_in: int, d_out: int, transposed: bool, base: Mapping[str, Any]) -> Fused | None:
    """Which rows of its B, or of its weight as (d_out, d_in), are q, k and v in a layer that fuses them.

    Args:
        module: its name.
        d_in: its input width.
        d_out: its output width.
        transposed: it is a Conv1D, as in GPT-2, and stores its weight as (d_in, d_out).
        base: config of the model; empty where it is not known.

    Returns:
        None for any other layer, and where neither `base` nor name and widths tell the layout.
    """
    thirds = _ends_in(module, _IN_THIRDS) or (transposed and _ends_in(module, ("c_attn",)))
    if layout := _layout(base):
        heads, kv_heads, blocks, order = layout
        head = base.get("head_dim") or d_in // heads
    else:
        heads, kv_heads, blocks, order, head = 1, 1, 1, "qkv", d_in
    if not is_fused(module) or not (layout or thirds) or d_out != head * (heads + 2 * kv_heads):
        return None  # the widths of cross-attention, say, are others
    widths = {"q": head * heads // blocks, "k": head * kv_heads // blocks, "v": head * kv_heads // blocks}
    return Fused(blocks, {letter: widths[letter] for letter in order}, transposed)


def _layout(base: Mapping[str, Any]) -> tuple[int, int, int, str] | None:
    """Heads of q, heads of k and of v, number of blocks of rows, and the order of q, k and v within each block."""
    heads = base.get("num_attention_heads") or base.get("n_head") or base.get("n_heads")
    kv_heads = base.get("num_kv_heads") or base.get("num_key_value_heads") or heads
    if not isinstance(heads, int) or not isinstance(kv_heads, int):
        return None
    match base.get("model_type"):
        case "gpt2" | "mpt" | "modernbert":
            return heads, heads, 1, "qkv"
        case "gpt_neox" | "gpt_neox_japanese" | "bloom" | "persimmon":
            return heads, heads, heads, "qkv"
        case "falcon" if base.get("new_decoder_architecture"):
            return heads, kv_heads, kv_heads, "qkv"
        case "falcon" | "gpt_bigcode":
            return (heads, 1, 1, "qkv") if base.get("multi_query", True) else (heads, heads, heads, "qkv")
        case "codegen":
            return heads, heads, 4, "qvk"
        case "phi3" | "phi4_multimodal":
            return heads, kv_heads, 1, "qkv"
    return None


def _ends_in(module: str, endings: Sequence[str]) -> bool:
    return f".{module}".endswith(tuple(f".{ending}" for ending in endings))


def fused_layers(model: nn.Module) -> dict[str, Fused]:
    """The layers of a model, not yet split, that fuse q, k and v: module name → rows; none in an unknown architecture.

    Raises:
        UserError: the rows of one cannot be told from its widths and the model's config.
    """
    config = _config(model)
    names = ARCHITECTURES.get(_model_type(model))
    layouts: dict[str, Fused] = {}
    if names is None or names.fused is None:
        return layouts
    for module, layer in model.named_modules():
        if _ends_in(module, [f"{attention}.{names.fused}" for attention in names.modules]) and _is_linear(layer):
            transposed = is_conv1d(layer)
            d_in, d_out = widths(layer)
            if (layout := fused_layout(module, d_in, d_out, transposed, config)) is None:
                raise UserError(
                    f"{module} of {type(model).__name__} fuses q, k and v in {d_out} rows, which do not fit its "
                    f"width {d_in} and the heads in its config: only self-attention as transformers has it can be split"
                )
            layouts[module] = layout
    return layouts


def widths(layer: nn.Module) -> tuple[int, int]:
    """d_in and d_out of a linear layer or a Conv1D."""
    if isinstance(layer, nn.Linear):  # whose weight may be packed
        return layer.in_features, layer.out_features
    d_in, d_out = layer.get_parameter("weight").shape
    return d_in, d_out


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers inside the numbered layers of a model, in its order."""
    return [name for name, layer in model.named_modules() if _is_linear(layer) and layer_of(name)]


def projections(
    model: nn.Module, wanted: Sequence[str] = ("q", "v"), names: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """The linear layers of `model` that LoRA adapts: module name → projection, in the order of the model.

    Where q or v is wanted, each layer has an attention module, and each attention module exactly one of it. Layers
    within experts are never adapted, whose tokens are no longer apart by arm, nor are those that read positions alone.

    Args:
        model: the base, not yet adapted; what fuses q, k and v is split.
        wanted: projections, as q, k, v, o, or how the names of layers end, as gate_proj; or "all-linear" for every
            linear layer inside the numbered layers.
        names: how the name of a projection's layer ends, as `{"q": "q_proj", "v": "v_proj"}`; for one that is not
            given, as `ARCHITECTURES` has it, or any of its names in a model that is not in there.

    Raises:
        UserError: an attention module has no or several of a projection, or nothing has a name that is wanted; the
            message lists what there is.
    """
    linear = [name for name in linear_layers(model) if not _READS_NO_ROWS.search(name)]
    everything = ALL_LINEAR in wanted
    endings = _endings(model, names or {})
    sites = {name: site for name in linear if (site := _site(name, endings))}
    letters = [letter for letter in "qkv" if letter in wanted or (everything and letter in "qv")]
    _check(model, sites.values(), letters, endings)
    found = {module: site.letter for module, site in sites.items() if everything or site.letter in letters}
    for name in [name for name in wanted if name not in ("q", "k", "v", ALL_LINEAR)]:
        called_so = [module for module in linear if _projection(module, sites) == name or _ends_in(module, (name,))]
        if not called_so:
            raise UserError(
                f"arms.projections has {name!r}, and {type(model).__name__} has no linear layer of that name in its "
                f"numbered layers: choose from {sorted({_projection(module, sites) for module in linear})}"
            )
        found |= {module: _projection(module, sites) for module in called_so}
    if everything:
        found |= {module: _projection(module, sites) for module in linear}
    return {module: found[module] for module in linear if module in found}


@dataclass(frozen=True)
class _Site:
    letter: str
    layer: int
    attention: str  # name of its module without numbers, as "model.layers.self_attn"


# How the name of a layer ends → how that of its attention does, before it ("" for any), and the projection.
_Endings = dict[str, tuple[tuple[str, ...], str]]


def _endings(model: nn.Module, names: Mapping[str, str | None]) -> _Endings:
    given: _Endings = {name: (("",), letter) for letter, name in names.items() if name}
    if known := ARCHITECTURES.get(_model_type(model)):
        endings: _Endings = {getattr(known, letter): (known.modules, letter) for letter in "qkvo"}
    else:
        endings = {name: (("",), letter) for name, letter in PROJECTIONS.items()}
        endings |= dict.fromkeys(_OUTPUTS, (("",), "o"))
    overridden = {letter for _, letter in given.values()}
    return {name: place for name, place in endings.items() if place[1] not in overridden} | given


def _site(module: str, endings: _Endings) -> _Site | None:
    for ending, (attentions, letter) in endings.items():
        attention = module.removesuffix(ending).removesuffix(".")
        if _ends_in(module, (ending,)) and (attentions == ("",) or _ends_in(attention, attentions)):
            return _Site(letter, layer_of(module) or 0, re.sub(r"\.\d+(?=\.|$)", "", attention))
    return None


def _projection(module: str, sites: Mapping[str, _Site]) -> str:
    return sites[module].letter if module in sites else module.rpartition(".")[2]


def _check(model: nn.Module, sites: Iterable[_Site], letters: Sequence[str], endings: _Endings) -> None:
    """Exactly one of each letter in every attention module, and such a module in every layer."""
    attentions: dict[int, set[str]] = {
        layer: set() for name, child in model.named_modules() if _has_weights(child) and (layer := layer_of(name))
    }
    if letters and not attentions:
        raise UserError(
            f"{type(model).__name__} has no numbered layers with q and v under the names {sorted(endings)}; "
            "give them by model.projections.q= and model.projections.v="
        )
    counts = Counter(sites)
    for site in counts:
        if site.letter != "o":
            attentions[site.layer].add(site.attention)
    for layer, letter in product(sorted(attentions), letters):
        for attention in sorted(attentions[layer]) or [""]:
            if (count := counts[_Site(letter, layer, attention)]) != 1:
                names = sorted(name for name, (_, meant) in endings.items() if meant == letter)
                raise UserError(
                    f"layer {layer} of {type(model).__name__} has {count} modules for {letter!r} under the names "
                    f"{names}{f' in {attention}' if attention else ''}; {_children(model, layer)}: "
                    f"{_way_on(letter)} (a layer that fuses q, k and v can be adapted in "
                    f"{', '.join(sorted(name for name, row in ARCHITECTURES.items() if row.fused))} alone)"
                )


def _way_on(letter: str) -> str:
    """The setting to give: q and v are named, other projections are asked for by their own names."""
    if letter in ("q", "v"):
        return f"give the right one by model.projections.{letter}=, or what else to adapt by arms.projections="
    return f"give the right one by its own name in place of {letter!r} in arms.projections="


def _children(model: nn.Module, layer: int) -> str:
    """What the attention of a layer holds; of one that has none by its name, what the layer does."""
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


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or is_conv1d(layer)


def _has_weights(child: nn.Module) -> bool:
    return any(True for _ in child.parameters(recurse=False))


def _config(model: nn.Module) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    return config.to_dict() if config is not None else {}


def _model_type(model: nn.Module) -> str:
    return str(_config(model).get("model_type", ""))
