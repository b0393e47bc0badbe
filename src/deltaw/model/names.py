"""The names that transformers' models give to q, k and v, in a table of architectures.

Nothing here imports transformers, so the analysis can use it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

ALL_LINEAR = "all-linear"  # every linear layer inside the numbered layers: not embeddings, not heads


@dataclass(frozen=True)
class Attention:
    """The names of one architecture's projections.

    Attributes:
        modules: how the names of its attention modules end.
        q, k, v, o: names below an attention module; `o` is the layer after attention.
        fused: name below an attention module of the layer that holds q, k and v in one; None if each has a layer.
    """

    modules: tuple[str, ...]
    q: str
    k: str
    v: str
    o: str
    fused: str | None = None


def _separate(modules: str, q: str, k: str, v: str, o: str) -> Attention:
    return Attention(tuple(modules.split()), q, k, v, o)


def _fused(module: str, fused: str, o: str) -> Attention:
    """Names after the split of the fused layer by `deltaw.model.split`."""
    return Attention((module,), f"{fused}.q_proj", f"{fused}.k_proj", f"{fused}.v_proj", o, fused)


_LLAMA = _separate("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")
_BERT = _separate("attention", "self.query", "self.key", "self.value", "output.dense")

# By `model_type`; `deltaw.model.fused` has the rows of the fused layers.
ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "olmo2": _LLAMA,
    "phi": _separate("self_attn", "q_proj", "k_proj", "v_proj", "dense"),
    "phi3": _fused("self_attn", "qkv_proj", "o_proj"),
    "opt": _separate("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    "gpt2": _fused("attn", "c_attn", "c_proj"),
    "gpt_neo": _separate("attn.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
    "gptj": _separate("attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    "gpt_neox": _fused("attention", "query_key_value", "dense"),
    "gpt_neox_japanese": _fused("attention", "query_key_value", "dense"),
    "gpt_bigcode": _fused("attn", "c_attn", "c_proj"),
    "codegen": _fused("attn", "qkv_proj", "out_proj"),
    "bloom": _fused("self_attention", "query_key_value", "dense"),
    "falcon": _fused("self_attention", "query_key_value", "dense"),
    "persimmon": _fused("self_attn", "query_key_value", "dense"),
    "mpt": _fused("attn", "Wqkv", "out_proj"),
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": _separate("attention", "self.query_proj", "self.key_proj", "self.value_proj", "output.dense"),
    "distilbert": _separate("attention", "q_lin", "k_lin", "v_lin", "out_lin"),
    "modernbert": _fused("attn", "Wqkv", "Wo"),
    "t5": _separate("SelfAttention EncDecAttention", "q", "k", "v", "o"),
    "bart": _separate("self_attn encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
}

# The meaning of each name in any model: neither an unknown architecture nor an adapter says which row applies.
PROJECTIONS = {
    getattr(names, letter).rpartition(".")[2]: letter for names in ARCHITECTURES.values() for letter in "qkv"
}
# With the name of the attention module where the layer's own says little: BERT, for one, has three "dense".
OUTPUTS = tuple(
    {
        f"{module}.{names.o}" if names.o.rpartition(".")[2] in ("dense", "c_proj", "Wo") else names.o: None
        for names in ARCHITECTURES.values()
        for module in names.modules
    }
)
# Names in diffusers' models, which an adapter may be of: the UNet of Stable Diffusion, or FLUX.
_PROJECTIONS_IN_DIFFUSERS = {"to_q": "q", "to_k": "k", "to_v": "v"}
_ENDINGS_OF_OUTPUTS = tuple(f".{name}" for name in (*OUTPUTS, "to_out.0", "to_out"))

_FUSED = {names.fused for names in ARCHITECTURES.values() if names.fused}
_FUSED |= {"qkv", "qkv_linear", "att_proj", "W_pack", "wqkv"}

# Layers inside an expert, and those of DeBERTa that read its table of relative positions instead of tokens.
READS_NO_ROWS = re.compile(r"\.experts\.\d+\.|\.pos_(key|query)_proj$")

# A method of DeBERTa's attention modules that gives q and k its table of relative positions, shared by all rows.
POSITIONS = "disentangled_attention_bias"


# A numbered layer by the usual names of lists: "layers.3", "h.3", and "down_blocks.0.attentions.1.transformer_blocks.0"
# in a UNet, "layers.0.blocks.1" in a Swin, "block.0.1" in a SegFormer.
LAYER = re.compile(
    r"(?:^|(?<=\.))(?P<list>(?P<of_lists>\w*blocks?|attentions)|h|\w*layers?|encoders|stages|ffns|resnets)"
    r"\.(?P<block>\d{1,9}(?:(?:\.blocks)?\.\d{1,9}|(?(of_lists)\.(?:transformer_blocks|attentions|resnets)\.\d{1,9}|(?!)))*)"
    r"(?=\.|$)"
)
_NUMBER = re.compile(r"(?:^|(?<=\.))(?P<block>\d{1,9})(?=\.|$)")


def layer_of(module: str) -> int | None:
    """Layer of one module of a transformer, counted from 1 as in the paper; None outside of the numbered layers.

    `deltaw.run.places` finds the layers of all modules of an adapter, whatever wraps them.
    """
    number = LAYER.search(module) or _NUMBER.search(module)
    return int(number["block"].partition(".")[0]) + 1 if number else None


def block_of(module: str) -> str:
    """Name of the numbered layer that contains a module, as "model.layers.3" for its q_proj; "" if none does."""
    found = LAYER.search(module) or _NUMBER.search(module)
    return module[: found.start("block")] + found["block"].partition(".")[0] if found else ""


def projection_of(module: str) -> str:
    """The projection of a module: "q", "k", "v", "o", or for others the last part of the name, as "fc1" or "net.2"."""
    if f".{module}".endswith(_ENDINGS_OF_OUTPUTS):
        return "o"
    parts = module.split(".")
    first = len(parts) - 1
    while first and parts[first].isdecimal():
        first -= 1
    name = ".".join(parts[first:])
    return PROJECTIONS.get(name) or _PROJECTIONS_IN_DIFFUSERS.get(name, name)


def is_fused(module: str) -> bool:
    """Whether a module of this name holds q, k and v in one."""
    return module.rpartition(".")[2] in _FUSED


def ends_in(module: str, endings: Sequence[str]) -> bool:
    """Whether the dotted name of a module ends in one of `endings`, by whole parts."""
    return f".{module}".endswith(tuple(f".{ending}" for ending in endings))


def is_conv1d(layer: nn.Module) -> bool:
    """Whether this is transformers' Conv1D: a linear layer that stores its weight as (d_in, d_out).

    In 4 bits it becomes an nn.Linear, but stays a Conv1D in the base's file and for PEFT.
    """
    return getattr(layer, "source_cls", type(layer)).__name__ == "Conv1D"


def is_linear(layer: nn.Module) -> bool:
    """Whether this is a linear layer or a Conv1D."""
    return isinstance(layer, nn.Linear) or is_conv1d(layer)


def is_4bit(layer: nn.Module) -> bool:
    """Whether this is bitsandbytes' Linear4bit: an nn.Linear whose weight is a column of packed bytes."""
    return type(layer).__name__ == "Linear4bit"


def widths(layer: nn.Module) -> tuple[int, int]:
    """d_in and d_out of a linear layer or a Conv1D."""
    if isinstance(layer, nn.Linear):  # its weight may be packed
        return layer.in_features, layer.out_features
    d_in, d_out = layer.get_parameter("weight").shape
    return d_in, d_out


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers inside the numbered layers of a model, in its order."""
    return [name for name, layer in model.named_modules() if is_linear(layer) and layer_of(name)]


def config_of(model: nn.Module) -> dict[str, Any]:
    """The config of a model as a mapping, empty if it has none."""
    config: Any = getattr(model, "config", None)
    return config.to_dict() if config is not None else {}


def attention_names(model: nn.Module) -> Attention | None:
    """The row of a model's architecture in the table, or None."""
    return ARCHITECTURES.get(str(config_of(model).get("model_type", "")))
