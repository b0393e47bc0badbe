"""Layers that fuse q, k and v: which of their rows are which, in transformers' models.

Nothing here imports transformers, so the analysis can use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from deltaw.errors import UserError
from deltaw.model.names import attention_names, config_of, ends_in, is_conv1d, is_fused, is_linear, widths

# Endings of layers that hold all rows of q, then of k, then of v in any model, if each has as many rows as d_in.
_IN_THIRDS = ("Wqkv", "qkv", "qkv_linear", "att_proj", "self_attn.qkv_proj")


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


def fused_layout(module: str, d_in: int, d_out: int, transposed: bool, base: Mapping[str, Any]) -> Fused | None:
    """Which rows are q, k and v in a layer that fuses them.

    Args:
        module: its name.
        d_in: its input width.
        d_out: its output width.
        transposed: whether it is a Conv1D, as in GPT-2, and stores its weight as (d_in, d_out).
        base: config of the model; empty if unknown.

    Returns:
        None for any other layer, and if neither `base` nor name and widths tell the layout.
    """
    in_thirds = ends_in(module, _IN_THIRDS) or (transposed and ends_in(module, ("c_attn",)))
    known = _layout(base)
    layout = known or _Layout(1, 1, 1)
    head = (base.get("head_dim") or d_in // layout.heads) if known else d_in
    if not is_fused(module) or not (known or in_thirds) or d_out != head * (layout.heads + 2 * layout.kv_heads):
        return None  # the widths of cross-attention, say, are others
    q, kv = head * layout.heads // layout.blocks, head * layout.kv_heads // layout.blocks
    return Fused(layout.blocks, {letter: q if letter == "q" else kv for letter in layout.order}, transposed)


class _Layout(NamedTuple):
    """Heads of q, heads of k and of v, number of blocks of rows, and the order of q, k and v within each block."""

    heads: int
    kv_heads: int
    blocks: int
    order: str = "qkv"


def _layout(base: Mapping[str, Any]) -> _Layout | None:
    heads = base.get("num_attention_heads") or base.get("n_head") or base.get("n_heads")
    kv_heads = base.get("num_kv_heads") or base.get("num_key_value_heads") or heads
    if not isinstance(heads, int) or not isinstance(kv_heads, int):
        return None
    match base.get("model_type"):
        case "gpt2" | "mpt" | "modernbert":
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
    return None


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
