"""Where the q and v projections of a transformer live.

The one module that knows names inside transformers' models. It imports none of them, so the analysis can use it.
"""

import re
from collections.abc import Mapping
from typing import Any

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

# The endings of the name of the layer behind attention, which training leaves alone. Several parts where one is not
# enough: BERT, for one, has three that end in "dense".
_OUTPUTS = (
    "o_proj",
    "out_proj",
    "out_lin",
    "o",
    "attention.output.dense",
    "attention.dense",
    "self_attention.dense",
    "self_attn.dense",
    "attn.c_proj",
    "attn.Wo",
)

# The last part of the name of a layer that holds q, k and v in one.
_FUSED = ("c_attn", "qkv_proj", "query_key_value", "Wqkv", "qkv", "qkv_linear", "att_proj")

# The endings under which it holds all rows of q, then of k, then of v, whatever the model, if each is as wide as d_in.
_IN_THIRDS = ("Wqkv", "qkv", "qkv_linear", "att_proj", "self_attn.qkv_proj")


def layer_of(module: str) -> int | None:
    """Layer of a module, counted from 1 as in the paper: the first whole number in its dotted name, plus one."""
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(number[1]) + 1 if number else None


def projection_of(module: str) -> str:
    """The projection of a module: "q", "k", "v", "o", or for any other the last part of its name."""
    name = module.rpartition(".")[2]
    return "o" if _ends_in(module, _OUTPUTS) else PROJECTIONS.get(name, name)


def is_fused(module: str) -> bool:
    """Whether a module of this name holds q, k and v in one."""
    return _ends_in(module, _FUSED)


def fused_rows(
    module: str, d_in: int, d_out: int, is_conv1d: bool, base: Mapping[str, Any]
) -> dict[str, tuple[range, ...]]:
    """Which rows of its B, or of its weight as (d_out, d_in), are q, k and v in a layer that fuses them.

    Args:
        module: its name.
        d_in: its input width.
        d_out: its output width.
        is_conv1d: it is a Conv1D, as in GPT-2, and stores its weight as (d_in, d_out).
        base: config of the model; empty where it is not known.

    Returns:
        Projection → rows; empty for any other layer, and where neither `base` nor name and widths tell the layout.
    """
    thirds = _ends_in(module, _IN_THIRDS) or (is_conv1d and _ends_in(module, ("c_attn",)))
    layout = _layout(base) or ((1, 1, 1, "qkv") if thirds else None)
    if layout is None or not is_fused(module):
        return {}
    heads, kv_heads, blocks, order = layout
    if d_out * heads != d_in * (heads + 2 * kv_heads):  # not self-attention, or heads of an unusual width
        return {}
    kv_width = d_in * kv_heads // heads // blocks
    widths = {"q": d_in // blocks, "k": kv_width, "v": kv_width}
    rows, offset = {}, 0
    for letter in order:
        starts = range(offset, d_out, d_out // blocks)
        rows[letter] = tuple(range(start, start + widths[letter]) for start in starts)
        offset += widths[letter]
    return rows


def _layout(base: Mapping[str, Any]) -> tuple[int, int, int, str] | None:
    """Heads of q, heads of k and of v, number of blocks of rows, and the order of q, k and v within each block."""
    heads = base.get("num_attention_heads") or base.get("n_head")
    kv_heads = base.get("num_kv_heads") or base.get("num_key_value_heads") or heads
    if not isinstance(heads, int) or not isinstance(kv_heads, int):
        return None
    match base.get("model_type"):
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


def _ends_in(module: str, endings: tuple[str, ...]) -> bool:
    return f".{module}".endswith(tuple(f".{ending}" for ending in endings))


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
