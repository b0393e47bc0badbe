"""Split layers that fuse q, k and v before LoRA, so that ΔW_q and ΔW_v have factors of their own."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deltaw.errors import UserError
from deltaw.model.fused import Fused, fused_layers
from deltaw.model.names import ALL_LINEAR, is_4bit
from deltaw.run.peft_files import SPLIT


class SplitLinear(nn.Module):
    """Three layers for q, k and v in place of one that fuses them; the output has the order of the fused rows.

    The attention around them does not notice. The weights are equal to the fused layer's to the bit, and frozen.

    Args:
        fused: an nn.Linear or a Conv1D.
        layout: which of its rows are q, k and v.
    """

    order: Tensor | None

    def __init__(self, fused: nn.Module, layout: Fused):
        super().__init__()
        self.layout = layout
        weight, bias = fused.get_parameter("weight").detach(), getattr(fused, "bias", None)
        weight = weight.T if layout.transposed else weight
        rows = {letter: _indices(layout.rows[letter]) for letter in "qkv"}
        self.q_proj, self.k_proj, self.v_proj = (_part(weight, bias, rows[letter]) for letter in "qkv")
        order = torch.cat([rows[letter] for letter in "qkv"]).argsort()
        in_order = bool((order.diff() == 1).all())
        self.register_buffer("order", None if in_order else order.to(weight.device), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The weight of q, because some models ask for its dtype."""
        return self.q_proj.weight

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        y = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)
        return y if self.order is None else y.index_select(-1, self.order)


def _indices(rows: tuple[range, ...]) -> Int[Tensor, " rows"]:
    return torch.cat([torch.arange(part.start, part.stop) for part in rows])


def _part(
    weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None, rows: Int[Tensor, " rows"]
) -> nn.Linear:
    part = nn.Linear(weight.shape[1], len(rows), bias is not None, "meta")  # so that no weights are drawn
    part.weight = nn.Parameter(weight[rows], requires_grad=False)
    if bias is not None:
        part.bias = nn.Parameter(bias.detach()[rows], requires_grad=False)
    return part


def split(model: nn.Module, wanted: Sequence[str] = ("q", "v")) -> None:
    """Split each layer of `model` that fuses q, k and v, in place, if any of the three or all layers are `wanted`.

    Raises:
        UserError: the rows of a layer do not fit its config, or it is in 4 bits already.
    """
    if {"q", "k", "v", ALL_LINEAR}.isdisjoint(wanted):
        return
    for module, layout in fused_layers(model).items():
        parent, _, name = module.rpartition(".")
        fused = model.get_submodule(module)
        if is_4bit(fused):
            raise UserError(
                f"{module} of {type(model).__name__} fuses q, k and v and is stored in 4 bits, in blocks that run "
                "across its rows: give the model as it was before, with model.dtype=nf4, to split it first"
            )
        setattr(model.get_submodule(parent), name, SplitLinear(fused, layout))


def split_metadata(model: nn.Module) -> dict[str, str]:
    """The metadata of a snapshot's safetensors file: the layouts of the split layers; empty if no layer is split.

    They are not in `adapter_config.json`, because PEFT warns of keys that it does not know.
    """
    layouts = {name: asdict(layer.layout) for name, layer in model.named_modules() if isinstance(layer, SplitLinear)}
    return {SPLIT: json.dumps(layouts)} if layouts else {}
