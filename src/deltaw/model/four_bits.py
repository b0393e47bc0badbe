"""A frozen base in 4 bits, as in QLoRA (arXiv 2305.14314): NF4, with scales that are quantised too.

bitsandbytes does the work, and is imported only where it is needed.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from deltaw.config.schema import NF4
from deltaw.errors import UserError
from deltaw.model.names import is_4bit, is_conv1d, linear_layers, widths

BLOCK = 64  # weights per scale
CODE_ERROR = 0.152  # per largest weight of a block: half of NF4's widest gap, from -1 to -0.696
SCALE_ERROR = 0.0071 + 2**-8  # per largest weight of all: half of the widest gap of 8-bit scales, and of bfloat16


def check_dtype(path: str, dtype: str, stored: Mapping[str, Any] | None) -> None:
    """Refuse a stored quantisation other than NF4, and one that `dtype` does not ask for.

    Args:
        path: the model.
        dtype: the value of model.dtype.
        stored: `quantization_config` of the model's config, None if its weights are not quantised.

    Raises:
        UserError: the weights are quantised, but not as `dtype` says, or bitsandbytes is missing.
    """
    if stored and not (stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == NF4):
        raise UserError(
            f"model.path={path} is quantised by {stored.get('quant_method')}, and only the NF4 weights of bitsandbytes "
            "can be trained on: give the model as it was before, with model.dtype=nf4 for 4 bits"
        )
    if stored and dtype != NF4:
        raise UserError(f"model.path={path} is stored in 4 bits, and model.dtype={dtype}: give model.dtype=nf4")
    if dtype == NF4 and find_spec("bitsandbytes") is None:
        raise UserError("model.dtype=nf4 needs the library bitsandbytes: pip install bitsandbytes")


def quantise(model: PreTrainedModel) -> None:
    """Put every linear layer inside the numbered layers of `model` into 4 bits, in place, one after another.

    Layers that transformers keeps in float32 stay as they are, as T5's `wo`, because the model asks for their dtype.
    A model stored in 4 bits stays as it is too. Call this after `split`, because blocks of weights run across rows.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        return
    kept = model._keep_in_fp32_modules or ()
    for module in linear_layers(model):
        if module.rpartition(".")[2] not in kept:
            model.set_submodule(module, _to_4bit(model.get_submodule(module)))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # or transformers counts bytes as parameters
    make_trainable(model)


def _to_4bit(layer: nn.Module) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight, bias = layer.get_parameter("weight").detach(), getattr(layer, "bias", None)
    weight = weight.T if is_conv1d(layer) else weight
    d_in, d_out = widths(layer)
    quantised: Any = Linear4bit(d_in, d_out, bias is not None, quant_type=NF4, device="meta")
    packed: Any = Params4bit(weight, quant_type=NF4, module=quantised)
    quantised.weight, quantised.bias = packed.to(weight.device), bias  # the move is what quantises
    quantised.source_cls = type(layer)  # where transformers notes it: see `is_conv1d`
    layer_in_4bit: nn.Module = quantised
    return layer_in_4bit


def make_trainable(model: nn.Module) -> None:
    """Let every 4-bit layer of `model` compute in bfloat16, and give gradients after passes without gradients too.

    On a CPU with bfloat16 instructions, bitsandbytes repacks the weights in the first pass without gradients, and
    repacked weights give none.
    """
    for layer in model.modules():
        if is_4bit(layer):
            layer.compute_dtype, layer.compute_type_is_set = torch.bfloat16, True  # type: ignore[assignment]
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def check_dequantising(model: nn.Module, device: torch.device) -> None:
    """Refuse a device on which bitsandbytes reads 4-bit weights wrongly.

    bitsandbytes 0.50 does so on CPUs with AVX-512 if d_in is a multiple of 16 but not of 64. The check quantises
    random weights in the shape of each 4-bit layer on the CPU, as the base is quantised, and reads them on `device`.

    Raises:
        UserError: the error in some shape is larger than 4 bits explain.
    """
    names: dict[tuple[int, int], str] = {}  # shape → its first layer
    for name, layer in model.named_modules():
        if is_4bit(layer):
            d_in, d_out = widths(layer)
            names.setdefault((d_out, d_in), name.removesuffix(".base"))  # inside an adapted layer
    errors = {shape: _error(shape, device) for shape in names}
    wrong = [shape for shape, (error, bound) in errors.items() if not error <= bound]  # NaN is wrong too
    if wrong:
        (d_out, d_in), (error, bound) = wrong[0], errors[wrong[0]]
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        more = f" and {len(wrong) - 1} more of the {len(names)} shapes of its layers" if wrong[1:] else ""
        raise UserError(
            f"bitsandbytes {version('bitsandbytes')} reads 4-bit weights wrongly on this {device.type} ({kind}), in "
            f"the shape of {names[wrong[0]]} (d_out × d_in = {d_out} × {d_in}){more}: standard normal weights come "
            f"back {error:.2f} off, and 4 bits explain {bound:.2f}; give model.dtype=bfloat16, a GPU by "
            "trainer.accelerator=gpu, or another version of bitsandbytes"
        )


def _error(shape: tuple[int, int], device: torch.device) -> tuple[float, float]:
    """The error of standard normal weights after reading, and the error that 4 bits explain, in the worst block."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    W = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    packed, state = quantize_4bit(W, blocksize=BLOCK, compress_statistics=True, quant_type=NF4)
    state.to(device)
    W = W.to(device).float()
    off, largest = _by_block(dequantize_4bit(packed.to(device), state) - W), _by_block(W)
    bound = CODE_ERROR * largest + SCALE_ERROR * largest.max()
    worst = (off / bound).argmax()
    return off[worst].item(), bound[worst].item()


def _by_block(W: Float[Tensor, "d_out d_in"]) -> Float[Tensor, " blocks"]:
    """The largest magnitude in each block of weights that share a scale."""
    W = W.flatten()
    return pad(W, (0, -len(W) % BLOCK)).view(-1, BLOCK).abs().amax(1)
