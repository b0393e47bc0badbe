"""One adapter folder: what is read, beside what PEFT itself makes of it, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from deltaw import load_adapter
from deltaw.adapter import Site
from deltaw.cli import UserError
from tests.folders import WIDTH, write_adapter

Q1 = "base_model.model.layers.0.q_proj"


def rewrite_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def test_layers_count_from_1_and_projections_have_letters(tmp_path: Path) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=4, layers=2))
    assert [(site.layer, site.projection) for site in adapter.factors] == [(1, "q"), (1, "v"), (2, "q"), (2, "v")]
    assert [site.module for site in adapter.factors][:2] == ["layers.0.q_proj", "layers.0.v_proj"]
    assert adapter.base == "tiny"


def test_sites_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=1, layers=11))
    assert [site.layer for site in adapter.factors][::2] == list(range(1, 12))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}},
        {"alpha_pattern": {r"layers\.1\.q_proj": 5}},
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 7}, "use_rslora": True},
    ],
)
def test_scale_times_the_factors_is_what_peft_adds(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = nn.ModuleDict({"layers": nn.ModuleList([Attention(), Attention()])})
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **settings)
    model = get_peft_model(base, config)
    model.save_pretrained(str(tmp_path))
    for site, factors in load_adapter(tmp_path).factors.items():
        layer: Any = model.get_submodule(f"base_model.model.{site.module}")
        assert_close(factors.scale * factors.B @ factors.A, layer.get_delta_weight("default"))


def test_modules_that_share_layer_and_letter_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    def move_q_into_experts(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "q_proj" in name]:
            for expert in "01":
                tensors[name.replace("q_proj", f"experts.{expert}.q_proj")] = tensors[name].clone()
            del tensors[name]

    rewrite_tensors(write_adapter(tmp_path / "a", rank=4, layers=1), move_q_into_experts)
    found = [(site.layer, site.projection) for site in load_adapter(tmp_path / "a").factors]
    assert found == [(1, "layers.experts.0.q_proj"), (1, "layers.experts.1.q_proj"), (1, "v")]


def test_what_lies_outside_of_the_layers_is_in_layer_0(tmp_path: Path) -> None:
    def add_head(tensors: dict[str, torch.Tensor]) -> None:
        for factor in "AB":
            tensors[f"base_model.model.score.lora_{factor}.weight"] = tensors[f"{Q1}.lora_{factor}.weight"].clone()

    rewrite_tensors(write_adapter(tmp_path / "a", rank=4, layers=1), add_head)
    assert next(iter(load_adapter(tmp_path / "a").factors)) == Site(0, "score", "score")


def set_config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))

    return change


def set_tensor(name: str, value: torch.Tensor) -> Callable[[Path], object]:
    return lambda folder: rewrite_tensors(folder, lambda tensors: tensors.update({name: value}))


def cut_short(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "peft_type None"),
        (set_config(peft_type="IA3"), "'IA3'"),
        (set_config(lora_alpha=None), "lora_alpha None"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
        (cut_short, "adapter_model.safetensors cannot be read"),
        (lambda folder: rewrite_tensors(folder, dict.clear), "no LoRA"),
        (lambda folder: rewrite_tensors(folder, lambda t: t.pop(f"{Q1}.lora_B.weight")), f"lacks {Q1}.lora_B"),
        (lambda folder: rewrite_tensors(folder, lambda t: t.pop(f"{Q1}.lora_A.weight")), f"lacks {Q1}.lora_A"),
        (set_tensor(f"{Q1}.lora_A.weight", torch.full((4, WIDTH), torch.nan)), f"{Q1}.lora_A.weight holds NaN"),
        (set_tensor(f"{Q1}.lora_B.weight", torch.full((WIDTH, 4), torch.inf)), f"{Q1}.lora_B.weight holds NaN"),
        (set_tensor(f"{Q1}.lora_B.weight", torch.ones(WIDTH, 5)), "B (16, 5)"),
        (set_tensor(f"{Q1}.lora_A.weight", torch.ones(4, WIDTH, 1)), "A (4, 16, 1)"),
    ],
)
def test_a_broken_folder_is_one_line_that_names_what_is_wrong(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = write_adapter(tmp_path / "a", rank=4)
    spoil(folder)
    with pytest.raises(UserError) as error:
        load_adapter(folder)
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)
