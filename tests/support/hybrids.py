"""Tiny untrained models that are more than a decoder with attention in every layer: hybrid ones, and with images."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedModel

from tests.support.tiny import make_tokenizer

LAYERS = 4

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 300,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_DELTA_RULE = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_IMAGES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}

# By `model_type`: the config, with what differs from a Llama's in `_TEXT`.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": _TEXT | _DELTA_RULE | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2": _TEXT | {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "recurrent_gemma": _TEXT
    | {"lru_width": 32, "attention_window_size": 16, "block_types": ["recurrent", "attention"]},
    "nemotron_h": _TEXT
    | {"layers_block_type": ["mamba", "attention", "mlp", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 8}
    | {"ssm_state_size": 8, "n_groups": 2},
    "gemma4_text": _TEXT
    | {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2, "global_head_dim": 8}
    | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300},
    "gemma3": {
        "text_config": _TEXT | {"attention_dropout": 0.5},
        "vision_config": _IMAGES,
        "mm_tokens_per_image": 4,
    },
    "llava": {
        "text_config": _TEXT | {"model_type": "llama"},
        "vision_config": _IMAGES | {"model_type": "clip_vision_model", "projection_dim": 32},
    },
}


def build(name: str) -> PreTrainedModel:
    """One of `CONFIGS` with random weights; a model that sees is loaded whole."""
    torch.manual_seed(0)
    auto: Any = AutoModelForMultimodalLM if name == "llava" else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(AutoConfig.for_model(name, **CONFIGS[name]))
    return model.eval()


def save(name: str, folder: Path) -> Path:
    """Write the model and a tokenizer to `folder` as transformers does."""
    build(name).save_pretrained(folder)
    make_tokenizer(folder)
    return folder
