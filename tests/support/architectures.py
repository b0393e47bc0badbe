"""A tiny untrained model of every architecture whose q, k and v have a place in `deltaw.model.names`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from deltaw.model.names import ARCHITECTURES as TABLE
from tests.support.tiny import make_tokenizer

WIDTH, HEADS, LAYERS, LABELS = 32, 4, 2, 3

_SMALL = {
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "vocab_size": 300,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

# The keys of a config that are widths of linear layers, each a multiple of 8 here.
_WIDTHS = (
    "hidden_size intermediate_size moe_intermediate_size head_dim d_model d_kv d_ff dim hidden_dim embedding_size "
    "ffn_dim encoder_ffn_dim decoder_ffn_dim word_embed_proj_dim"
).split()

# By the name of a task: the class that loads a model for it.
LOADERS: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
    "masked": AutoModelForMaskedLM,
}


@dataclass(frozen=True)
class Architecture:
    """One way in which transformers lays out attention.

    Attributes:
        name: its `model_type`, and what tells several of one apart.
        config: what differs from `_SMALL`.
        task: "causal", "seq2seq" or "classification": what the model is trained for.
        rows_q, rows_v: of the weights of q and v.
        spread: standard deviation of its random weights.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    task: str = "causal"
    rows_q: int = WIDTH
    rows_v: int = WIDTH
    spread: float = 0.2

    @property
    def model_type(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def attentions(self) -> int:
        """Attention modules of the whole model: in an encoder-decoder the decoder's layers have two."""
        return LAYERS * (3 if self.task == "seq2seq" else 1)

    def build(self, task: str | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """The model with random weights, biases and norms too, so that none of them can be left out unseen."""
        torch.manual_seed(0)
        settings = _SMALL | {"num_labels": LABELS} | self.config
        config = AutoConfig.for_model(self.model_type, **settings)
        model: Any = LOADERS[task or self.task].from_config(config, experts_implementation="eager")  # knows float64
        with torch.no_grad():
            for parameter in model.parameters():
                mean = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
                nn.init.normal_(parameter, mean, 0.1 if parameter.ndim == 1 else self.spread)
        built: PreTrainedModel = model.to(dtype).eval()
        return built

    def wide(self) -> "Architecture":
        """The same with every width a multiple of 64, and outputs of the same size."""
        config = {key: 8 * value if key in _WIDTHS else value for key, value in (_SMALL | self.config).items()}
        return replace(self, config=config, rows_q=8 * self.rows_q, rows_v=8 * self.rows_v, spread=0.2 / 8**0.5)

    def save(self, folder: Path) -> Path:
        """Write the model and a tokenizer to `folder` as transformers does."""
        self.build().save_pretrained(folder)
        make_tokenizer(folder)
        return folder


def _grouped(name: str, **config: Any) -> Architecture:
    """Half as many heads for k and v as for q."""
    return Architecture(name, {"num_key_value_heads": 2} | config, rows_v=WIDTH // 2)


_GPT_NEO = {"num_layers": LAYERS, "num_heads": HEADS, "attention_types": [[["global", "local"], 1]], "window_size": 8}
_T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 40, "num_layers": LAYERS, "num_heads": HEADS, "decoder_start_token_id": 0}
_BART = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in [
        _grouped("llama", attention_bias=True, mlp_bias=True),
        Architecture("llama tied", {"tie_word_embeddings": True}),
        Architecture("llama wide heads", {"head_dim": 16}, rows_q=64, rows_v=64),
        _grouped("mistral", sliding_window=8),
        _grouped("qwen2"),
        _grouped("qwen3", head_dim=8),
        _grouped("qwen3_moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8),
        _grouped("gemma2", head_dim=8),
        Architecture("gemma3_text", {"head_dim": 16, "num_key_value_heads": 1}, rows_q=64, rows_v=16),
        _grouped("phi"),
        _grouped("phi3"),
        Architecture("phi3 as wide", {"num_key_value_heads": HEADS}),
        _grouped("olmo2"),
        Architecture("opt", {"ffn_dim": 40, "word_embed_proj_dim": WIDTH}),
        Architecture("gpt2"),
        Architecture("gpt_neo", _GPT_NEO),
        Architecture("gptj", {"rotary_dim": 4}),
        Architecture("gpt_neox"),
        Architecture("gpt_neox apart", {"use_parallel_residual": False, "attention_bias": False}),
        Architecture("gpt_neox_japanese"),
        Architecture("gpt_bigcode", {"multi_query": True}, rows_v=WIDTH // HEADS),
        Architecture("gpt_bigcode per head", {"multi_query": False}),
        Architecture("codegen", {"rotary_dim": 4}),
        Architecture("bloom"),
        Architecture("falcon", {"multi_query": True, "bias": True}, rows_v=WIDTH // HEADS),
        Architecture("falcon grouped", {"new_decoder_architecture": True, "num_kv_heads": 2}, rows_v=WIDTH // 2),
        Architecture("falcon per head", {"multi_query": False, "alibi": True, "bias": True}),
        Architecture("persimmon"),
        Architecture("mpt", {"d_model": WIDTH, "n_heads": HEADS, "n_layers": LAYERS, "max_seq_len": 160}),
        Architecture("bert", task="classification"),
        Architecture("roberta", {"max_position_embeddings": 162}, task="classification"),
        Architecture("electra", {"embedding_size": 16}, task="classification"),
        Architecture("deberta-v2", task="classification"),
        Architecture("deberta-v2 relative", _RELATIVE | {"share_att_key": True}, task="classification"),
        Architecture("deberta-v2 two keys", _RELATIVE | {"share_att_key": False}, task="classification"),
        Architecture(
            "distilbert", {"dim": WIDTH, "hidden_dim": 40, "n_layers": LAYERS, "n_heads": HEADS}, task="classification"
        ),
        Architecture(
            "modernbert",
            {"global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
            task="classification",
        ),
        Architecture("t5", _T5, task="seq2seq"),
        Architecture("bart", _BART, task="seq2seq"),
    ]
}

FUSED = {name: found for name, found in ARCHITECTURES.items() if TABLE[found.model_type].fused}
