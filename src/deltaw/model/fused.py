"""Layers that fuse q, k and v, or q and its gate: which of their rows are which, in transformers' models.

Nothing here imports transformers, so the analysis can use it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from deltaw.errors import UserError
from deltaw.model.names import attention_names, config_of, ends_in, is_conv1d, is_fused, is_linear, widths

# Endings of layers that hold all rows of q, then of k, then of v in any model, if each has as many rows as d_in.
_IN_THIRDS = ("Wqkv", "qkv", "qkv_linear", "att_proj", "W_pack", "self_attn.qkv_proj")

# By `model_type`: models whose q_proj is twice as wide as q, and what the other rows are.
_WITH_GATE = ("qwen3_next", "qwen3_5", "qwen4_exp")
OUTPUT_GATE = "output_gate"

# Ending of a layer → names of published models in which it holds q, as wide as d_in, then narrower k and v.
_IN_ORDER = {
    "self_attn.qkv_proj": r"phi-?[34]",
    "query_key_value": r"falcon-7b|chatglm[23]|glm-4-9b",
    "c_attn": r"gpt_?bigcode|starcoder(?!2)|santacoder",
}
# Published models in which the rows of q, k and v take turns head by head → model_type, width and number of heads.
_BY_HEAD = {
    "pythia-14m": ("gpt_neox", 128, 4),
    "pythia-31m": ("gpt_neox", 256, 8),
    "pythia-70m": ("gpt_neox", 512, 8),
    "pythia-160m": ("gpt_neox", 768, 12),
    "pythia-410m": ("gpt_neox", 1024, 16),
    "pythia-1b": ("gpt_neox", 2048, 8),
    "pythia-1.4b": ("gpt_neox", 2048, 16),
    "pythia-2.8b": ("gpt_neox", 2560, 32),
    "pythia-6.9b": ("gpt_neox", 4096, 32),
    "pythia-12b": ("gpt_neox", 5120, 40),
    "gpt-neox-20b": ("gpt_neox", 6144, 64),
    "bloom-560m": ("bloom", 1024, 16),
    "bloom-1b1": ("bloom", 1536, 16),
    "bloom-1b7": ("bloom", 2048, 16),
    "bloom-3b": ("bloom", 2560, 32),
    "bloom-7b1": ("bloom", 4096, 32),
    "bloom": ("bloom", 14336, 112),
}


@dataclass(frozen=True)
class Fused:
    """The rows of q, k and v in a fused layer: in its weight as (d_out, d_in), and in the B of an adapter.

    Attributes:
        blocks: number of equal blocks that the rows form.
        widths: rows of each projection in a block, in their order there.
        transposed: whether the layer stores (d_in, d_out), as Conv1D does.
    """

    blocks: int
    widths: dict[str, int]
    transposed: bool

    @property
    def d_out(self) -> int:
        """All rows of the layer."""
        return self.blocks * sum(self.widths.values())

    @property
    def rows(self) -> dict[str, tuple[range, ...]]:
        """Projection → the ranges of its rows."""
        rows, offset = {}, 0
        for letter, width in self.widths.items():
            starts = [offset] if self.blocks == 1 else range(offset, self.d_out, self.d_out // self.blocks)
            rows[letter] = tuple(range(start, start + width) for start in starts)
            offset += width
        return rows


def fused_layout(
    module: str, d_in: int, d_out: int, transposed: bool, base: Mapping[str, Any], name: str = ""
) -> Fused | None:
    """Which rows are q, k and v in a layer that fuses them, or q and the gate of the attention's output.

    Args:
        module: its name.
        d_in: its input width.
        d_out: its output width.
        transposed: whether it is a Conv1D, as in GPT-2, and stores its weight as (d_in, d_out).
        base: config of the model; empty if unknown.
        name: the model's name, which tells as much for some published models.

    Returns:
        None for any other layer, and if neither `base` nor names and widths tell the layout.
    """
    if not is_fused(module):
        text = base.get("text_config")
        return _with_gate(module, d_out, text if isinstance(text, Mapping) else base)
    known = _layout(base) or _published(module, d_in, d_out, name.lower())
    in_thirds = ends_in(module, _IN_THIRDS) or (transposed and ends_in(module, ("c_attn",)))
    width = _count(base, "hidden_size", "n_embd", "d_model") or d_in
    if width != d_in or not (known or in_thirds):
        return None
    layout = known or _Layout(1, 1, 1)
    head = (_count(base, "head_dim", "kv_channels") or d_in // layout.heads) if known else d_in
    if d_out != head * (layout.heads + 2 * layout.kv_heads):
        return None  # the widths of cross-attention, say, are others
    q, kv = head * layout.heads // layout.blocks, head * layout.kv_heads // layout.blocks
    return Fused(layout.blocks, {letter: q if letter == "q" else kv for letter in layout.order}, transposed)


def _with_gate(module: str, d_out: int, base: Mapping[str, Any]) -> Fused | None:
    """In Qwen3-Next and its successors, q_proj has q and the gate of the attention's output, head by head."""
    heads, head = _count(base, "num_attention_heads"), _count(base, "head_dim")
    if not str(base.get("model_type")).startswith(_WITH_GATE) or not ends_in(module, ("self_attn.q_proj",)):
        return None
    return Fused(heads, {"q": head, OUTPUT_GATE: head}, False) if heads and head and d_out == 2 * heads * head else None


class _Layout(NamedTuple):
    """Heads of q, heads of k and of v, number of blocks of rows, and the order of q, k and v within each block."""

    heads: int
    kv_heads: int
    blocks: int
    order: str = "qkv"


def _published(module: str, d_in: int, d_out: int, name: str) -> _Layout | None:
    """The layout in a published model of this name, or in one fine-tuned from it that keeps the name."""
    for ending, names in _IN_ORDER.items():
        if ends_in(module, (ending,)) and re.search(names, name) and d_in < d_out < 3 * d_in:
            return _Layout(d_in, (d_out - d_in) // 2, 1)
    if ends_in(module, ("c_attn",)) and "qwen" in name:
        return _Layout(1, 1, 1)
    if re.search("codegen(?!2)", name):
        return _layout({"model_type": "codegen", "num_attention_heads": 4})
    for known, (kind, width, heads) in _BY_HEAD.items():
        if width == d_in and re.search(rf"{re.escape(known)}(?![\w.])", name.replace("bloomz", "bloom")):
            return _layout({"model_type": kind, "num_attention_heads": heads})
    return None


def _layout(base: Mapping[str, Any]) -> _Layout | None:
    heads = _count(base, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _count(base, "num_kv_heads", "num_key_value_heads") or heads
    if heads is None or kv_heads is None:
        return None
    match base.get("model_type"):
        case "gpt2" | "mpt" | "modernbert" | "qwen" | "baichuan":
            return _Layout(heads, heads, 1)
        case "gpt_neox" | "gpt_neox_japanese" | "bloom" | "persimmon":
            return _Layout(heads, heads, heads)
        case "falcon" if base.get("new_decoder_architecture"):
            return _Layout(heads, kv_heads, kv_heads)
        case "falcon" | "gpt_bigcode":
            return _Layout(heads, 1, 1) if base.get("multi_query", True) else _Layout(heads, heads, heads)
        case "codegen":
            return _Layout(heads, heads, 4, "qvk")
        case "phi3" | "phi4_multimodal":
            return _Layout(heads, kv_heads, 1)
        case "chatglm" if base.get("multi_query_attention") and (groups := _count(base, "multi_query_group_num")):
            return _Layout(heads, groups, 1)
        case "internlm2":
            return _Layout(heads, kv_heads, kv_heads)
    return None


def _count(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first whole number above 0 that a config has under one of these keys."""
    counts = (config.get(key) for key in keys)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)


def fused_layers(model: nn.Module) -> dict[str, Fused]:
    """The layers of a model that fuse q, k and v: module name → rows; none in an unknown architecture.

    Raises:
        UserError: neither the widths of a layer nor the model's config tell its rows.
    """
    names, config = attention_names(model), config_of(model)
    layouts: dict[str, Fused] = {}
    if names is None or names.fused is None:
        return layouts
    for module, layer in model.named_modules():
        if ends_in(module, [f"{attention}.{names.fused}" for attention in names.modules]) and is_linear(layer):
            d_in, d_out = widths(layer)
            if (layout := fused_layout(module, d_in, d_out, is_conv1d(layer), config)) is None:
                raise UserError(
                    f"{module} of {type(model).__name__} fuses q, k and v in {d_out} rows, which do not fit its "
                    f"width {d_in} and the heads in its config: only self-attention as transformers has it can be split"
                )
            layouts[module] = layout
    return layouts
