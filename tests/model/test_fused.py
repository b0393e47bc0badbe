"""Which rows of a fused layer are q, k and v, as the config or the name of the base tells."""

from typing import Any

import pytest

from deltaw.model.fused import Fused, fused_layout


def layout(ending: str, d_in: int, d_out: int, name: str = "", **base: Any) -> Fused | None:
    return fused_layout(f"model.layers.0.{ending}", d_in, d_out, False, base, name)


@pytest.mark.parametrize(
    ("ending", "d_in", "d_out", "name", "config"),
    [
        (
            *("attention.query_key_value", 512, 1536, "EleutherAI/pythia-70m-deduped"),
            {"model_type": "gpt_neox", "hidden_size": 512, "num_attention_heads": 8},
        ),
        (
            *("attention.query_key_value", 2048, 6144, "someone/pythia-1.4b-chat"),
            {"model_type": "gpt_neox", "hidden_size": 2048, "num_attention_heads": 16},
        ),
        (
            *("self_attention.query_key_value", 1024, 3072, "bigscience/bloomz-560m"),
            {"model_type": "bloom", "n_embd": 1024, "n_head": 16},
        ),
        (
            *("self_attention.query_key_value", 4544, 4672, "tiiuae/falcon-7b-instruct"),
            {"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "multi_query": True},
        ),
        (
            *("self_attention.query_key_value", 4096, 4608, "THUDM/chatglm3-6b"),
            {
                **{"model_type": "chatglm", "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128},
                **{"multi_query_attention": True, "multi_query_group_num": 2},
            },
        ),
        (
            *("attn.c_attn", 6144, 6400, "bigcode/starcoder"),
            {"model_type": "gpt_bigcode", "n_embd": 6144, "n_head": 48, "multi_query": True},
        ),
        (
            *("self_attn.qkv_proj", 3072, 5120, "microsoft/Phi-4-mini-instruct"),
            {"model_type": "phi3", "hidden_size": 3072, "num_attention_heads": 24, "num_key_value_heads": 8},
        ),
        (
            *("attn.qkv_proj", 1024, 3072, "Salesforce/codegen-350M-mono"),
            {"model_type": "codegen", "n_embd": 1024, "n_head": 16},
        ),
        (
            *("attn.c_attn", 4096, 12288, "Qwen/Qwen-7B-Chat"),
            {"model_type": "qwen", "hidden_size": 4096, "num_attention_heads": 32},
        ),
    ],
)
def test_a_published_name_tells_the_rows_that_its_config_tells(
    ending: str, d_in: int, d_out: int, name: str, config: dict[str, Any]
) -> None:
    told = layout(ending, d_in, d_out, **config)
    assert told is not None and told.d_out == d_out
    found = layout(ending, d_in, d_out, name)
    assert found is not None and found.rows == told.rows
    assert layout(ending, d_in, d_out, "some/name") is None


@pytest.mark.parametrize(
    ("ending", "d_in", "d_out", "name"),
    [
        ("attention.query_key_value", 64, 192, "EleutherAI/pythia-70m"),  # of another width than that model
        ("attention.query_key_value", 2048, 6144, "EleutherAI/pythia-1.4"),
        ("self_attention.query_key_value", 2048, 6144, "tiiuae/falcon-rw-1b"),
        ("attn.c_attn", 6144, 6400, "bigcode/starcoder2-3b"),
        ("attn.qkv_proj", 1024, 3072, "Salesforce/codegen2-1B"),
        ("self_attn.q_proj", 512, 1536, "EleutherAI/pythia-70m"),
    ],
)
def test_nothing_is_guessed(ending: str, d_in: int, d_out: int, name: str) -> None:
    assert layout(ending, d_in, d_out, name) is None


def test_the_config_of_a_base_of_another_width_tells_nothing() -> None:
    assert layout("query_key_value", 64, 192, model_type="bloom", hidden_size=128, num_attention_heads=4) is None


def test_internlm2_has_the_rows_of_a_group_of_heads_side_by_side() -> None:
    config: dict[str, Any] = {
        "model_type": "internlm2",
        "hidden_size": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    found = layout("attention.wqkv", 8, 16, **config)
    assert found is not None and found.rows == {
        "q": (range(4), range(8, 12)),
        "k": (range(4, 6), range(12, 14)),
        "v": (range(6, 8), range(14, 16)),
    }


def test_baichuan_has_three_equal_parts_whatever_its_name() -> None:
    found = layout("self_attn.W_pack", 8, 24)
    assert found is not None and found.rows == {"q": (range(8),), "k": (range(8, 16),), "v": (range(16, 24),)}
