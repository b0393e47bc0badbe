"""Bases with attention in some layers, with a gate beside q, or with a tower for images: where arms go."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deltaw import load_adapter
from deltaw.errors import UserError
from deltaw.model.loading import base_shape
from deltaw.model.names import block_of
from deltaw.model.projections import layers_beside, projections
from tests.support.hybrids import CONFIGS, LAYERS, build, save

# By base: the layers, counted from 0, that have q and that have v.
LAYERS_WITH = {
    "qwen3_5_text": {"q": [1, 3], "v": [1, 3]},
    "lfm2": {"q": [1], "v": [1]},
    "recurrent_gemma": {"q": [1, 3], "v": [1, 3]},
    "nemotron_h": {"q": [1, 3], "v": [1, 3]},
    "gemma4_text": {"q": [0, 1, 2, 3], "v": [0, 1]},  # the last two layers take k and v from those before
    "gemma3": {"q": [0, 1, 2, 3], "v": [0, 1, 2, 3]},
    "llava": {"q": [0, 1, 2, 3], "v": [0, 1, 2, 3]},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_layers_of_text_that_have_attention_are_adapted(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    model = base_shape(str(tmp_path)).model
    found = projections(model)
    layers = {
        letter: [int(block_of(module).split(".")[-1]) for module in found if found[module] == letter] for letter in "qv"
    }
    assert layers == LAYERS_WITH[name]
    assert len(layers_beside(model, found)) == LAYERS
    everything = projections(model, ["all-linear"])
    assert not [module for module in everything if "vision" in module]
    assert name != "nemotron_h" or not [module for module in everything if module.endswith("in_proj")]  # of Mamba


def test_dropout_is_off_inside_the_config_of_the_text_too(tmp_path: Path) -> None:
    text = base_shape(str(save("gemma3", tmp_path))).model.config.get_text_config()
    assert text.attention_dropout == 0 and not text.use_cache


def test_an_attention_unlike_the_others_of_its_kind_is_refused() -> None:
    def attention(*names: str) -> nn.ModuleDict:
        return nn.ModuleDict({"self_attn": nn.ModuleDict({name: nn.Linear(4, 4) for name in names})})

    plain, without_v = attention("q_proj", "v_proj"), attention("q_proj", "qv_proj")
    assert len(projections(nn.ModuleDict({"layers": nn.ModuleList([plain, without_v])}))) == 3
    with pytest.raises(UserError, match="has 0 modules for 'v'"):
        projections(nn.ModuleDict({"layers": nn.ModuleList([without_v, without_v])}))


def gated() -> tuple[Any, str]:
    return build("qwen3_5_text"), "model.layers.3.self_attn.q_proj"


@torch.no_grad()
def logits(rows: list[int], tokens: list[int]) -> Tensor:
    """Logits of the last token, where some rows of the last q_proj are 0."""
    model, module = gated()
    model.get_submodule(module).weight[rows] = 0
    out: Tensor = model(input_ids=torch.tensor([tokens])).logits[0, -1]
    return out


def test_q_and_its_gate_are_told_apart_by_the_rows_of_b(tmp_path: Path) -> None:
    """A text of one token attends to itself alone: its q does not matter there, and its gate does."""
    model, module = gated()
    model.config.save_pretrained(tmp_path)
    d_out, d_in = model.get_submodule(module).weight.shape
    generator = torch.Generator().manual_seed(0)
    factors = {
        "lora_A": torch.randn(2, d_in, generator=generator),
        "lora_B": torch.randn(d_out, 2, generator=generator),
    }
    save_file(
        {f"base_model.model.{module}.{name}.weight": factor for name, factor in factors.items()},
        tmp_path / "adapter_model.safetensors",
    )
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": str(tmp_path),
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = load_adapter(tmp_path)
    rows = {site.projection: [row for part in lora.rows or () for row in part] for site, lora in adapter.sites.items()}
    assert list(rows) == ["output_gate_proj", "q"] and sorted(rows["q"] + rows["output_gate_proj"]) == [*range(d_out)]
    assert any("q and the gate of the attention's output" in remark for remark in adapter.remarks)
    assert torch.equal(logits(rows["q"], [5]), logits([], [5]))
    assert not torch.allclose(logits(rows["output_gate_proj"], [5]), logits([], [5]), atol=1e-6)
    assert not torch.allclose(logits(rows["q"], [5, 6, 7]), logits([], [5, 6, 7]), atol=1e-6)
