"""A frozen base in 4 bits, as QLoRA (arXiv 2305.14314) has it: NF4 with scales that are quantised too.

bitsandbytes does it, and is imported where it is needed alone.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from deltaw.cli import UserError
from deltaw.projection import is_4bit, is_conv1d, linear_layers, widths

NF4 = "nf4"


def check_dtype(path: str, dtype: str, stored: Mapping[str, Any] | None) -> None:
    """Refuse what cannot be a base in NF4, or is one and was not asked for so.

    Args:
        path: of the model.
        dtype: what is asked for.
        stored: `quantization_config` of the model's config.

    Raises:
        UserError: bitsandbytes is missing, or the weights are stored quantised in another way than asked for.
    """
    if stored and not (stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == NF4):
        raise UserError(
            f"model.path={path} is quantised by {stored.get('quant_method')}, and of quantised weights only those of "
            "bitsandbytes in NF4 can be trained on: give the model as it was before, with model.dtype=nf4 for 4 bits"
        )
    if stored and dtype != NF4:
        raise UserError(f"model.path={path} is stored in 4 bits, and model.dtype={dtype}: give model.dtype=nf4")
    if dtype == NF4 and find_spec("bitsandbytes") is None:
        raise UserError("model.dtype=nf4 needs the library bitsandbytes: pip install 'deltaw[4bit]'")


def quantise(model: PreTrainedModel) -> None:
    """Put every linear layer inside the numbered layers of `model` in 4 bits, in place, one after another.

    What transformers keeps from its own quantiser stays as it is, as T5's `wo`, whose dtype is asked for; and so does
    a model that was stored in 4 bits. To come after `split`: the blocks of one scale run across rows.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        return
    kept = model._keep_in_fp32_modules or ()
    for module in linear_layers(model):
        if module.rpartition(".")[2] not in kept:
            model.set_submodule(module, _in_4bit(model.get_submodule(module)))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # else transformers counts bytes as parameters
    make_trainable(model)


def _in_4bit(layer: nn.Module) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight, bias = layer.get_parameter("weight").detach(), getattr(layer, "bias", None)
    weight = weight.T if is_conv1d(layer) else weight
    d_in, d_out = widths(layer)
    quantised: Any = Linear4bit(d_in, d_out, bias is not None, quant_type=NF4, device="meta")
    packed: Any = Params4bit(weight, quant_type=NF4, module=quantised)
    quantised.weight, quantised.bias = packed.to(weight.device), bias  # the move is what quantises
    quantised.source_cls = type(layer)  # as transformers notes it: see `is_conv1d`
    layer_in_4bit: nn.Module = quantised
    return layer_in_4bit


def make_trainable(model: nn.Module) -> None:
    """Have every 4-bit layer of `model` compute in bfloat16, and give gradients whatever it did before.

    On a CPU with bfloat16 instructions, bitsandbytes packs weights anew in the first pass without gradients, and what
    it has packed so has none any more.
    """
    for layer in model.modules():
        if is_4bit(layer):
            layer.compute_dtype, layer.compute_type_is_set = torch.bfloat16, True  # type: ignore[assignment]
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
