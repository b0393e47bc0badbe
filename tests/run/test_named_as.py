"""Adapters of one base under several wrappers, and of one with layers that fuse q, k and v."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from deltaw import compare, load_adapter
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Site
from deltaw.run.peft_files import CONFIG, WEIGHTS
from tests.support.folders import WIDTH, write_adapter


def renamed(folder: Path, rename: Callable[[str], str]) -> Path:
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
    return folder


def wrapped(folder: Path, wrapper: str, **settings: Any) -> Adapter:
    """An adapter of random factors whose modules have a wrapper around `layers`."""
    return load_adapter(
        renamed(write_adapter(folder, **settings), lambda name: name.replace("layers", wrapper + "layers"))
    )


def write_modules(folder: Path, *modules: str, d_out: int = WIDTH, **config: object) -> Path:
    """Random factors of rank 2 for modules with these names, of input width WIDTH."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(2, WIDTH, generator=generator)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(d_out, 2, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | config))
    return folder


# Wrappers.


@pytest.mark.parametrize("wrapper", ["0.auto_model.encoder.", "_orig_mod.model.", "model.language_model.", "own.net."])
def test_sites_and_factors_are_the_same_in_any_wrapper(tmp_path: Path, wrapper: str) -> None:
    plain = load_adapter(write_adapter(tmp_path / "plain", rank=4, layers=12))
    adapter = wrapped(tmp_path / "a", wrapper, rank=4, layers=12)
    assert [(site.layer, site.projection) for site in adapter.sites] == [(n, p) for n in range(1, 13) for p in "qv"]
    named = adapter.named_as(plain)
    assert list(named.sites) == list(plain.sites)
    for site in plain.sites:
        assert site.module in {other.module for other in named.sites}
        assert_close(named.A(site), plain.A(site), rtol=0, atol=0)
        assert_close(named.B(site), plain.B(site), rtol=0, atol=0)


def test_a_direction_shared_at_some_layers_is_found_at_these_layers(tmp_path: Path) -> None:
    def share(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "lora_A" in name and int(name.split(".")[3]) % 3 == 2]:
            tensors[name][0] = 100 * torch.ones(WIDTH)

    folders = [write_adapter(tmp_path / f"{rank}", rank=rank, layers=6, seed=rank) for rank in (2, 4)]
    for folder in folders:
        tensors = load_file(folder / WEIGHTS)
        share(tensors)
        save_file(tensors, folder / WEIGHTS)
        renamed(folder, lambda name: name.replace("layers", "0.auto_model.encoder.layer"))
    pairs = compare(load_adapter(folders[0]), load_adapter(folders[1]), "A").pairs
    assert set(pairs.layer[pairs.phi_first > 0.9]) == {3, 6}
    assert len(pairs) == 12


def test_the_start_of_an_adapter_gets_the_same_names(tmp_path: Path) -> None:
    plain = load_adapter(write_adapter(tmp_path / "plain", rank=4))
    folder = renamed(write_adapter(tmp_path / "a", rank=4), lambda name: name.replace("layers", "0.net.layers"))
    named = load_adapter(folder, start=folder).named_as(plain)
    assert named.start is not None and list(named.start.sites) == list(plain.sites)


def test_the_text_of_two_classes_is_shared_and_a_tower_of_images_stays_apart(tmp_path: Path) -> None:
    text = [f"model.layers.{n}.self_attn.q_proj" for n in range(3)]
    images = [f"model.vision_tower.layers.{n}.self_attn.q_proj" for n in range(2)]
    left = load_adapter(write_modules(tmp_path / "left", *text))
    both = [name.replace("model.layers", "model.language_model.layers") for name in text] + images
    right = load_adapter(write_modules(tmp_path / "right", *both)).named_as(left)
    assert [str(site) for site in right.sites if site in left.sites] == [f"q of layer {n}" for n in (1, 2, 3)]
    assert [str(site) for site in right.sites if site not in left.sites] == [
        f"vision_tower.q of layer {n}" for n in (1, 2)
    ]


def test_a_stack_that_matches_exactly_does_not_hide_another(tmp_path: Path) -> None:
    names = ("{}layers.0.self_attn.q_proj", "{}layers.1.self_attn.q_proj", "mtp.layers.0.self_attn.q_proj")
    left, right = (
        write_modules(tmp_path / str(n), *(name.format(wrapper) for name in names))
        for n, wrapper in enumerate(("model.", "model.language_model."))
    )
    assert len(compare(left, right, "A").pairs) == 3


def test_sites_of_another_tower_are_no_sites_of_this_one(tmp_path: Path) -> None:
    left = load_adapter(write_modules(tmp_path / "left", "encoder.block.0.layer.0.SelfAttention.q"))
    right = load_adapter(write_modules(tmp_path / "right", "decoder.block.0.layer.0.SelfAttention.q"))
    assert list(left.sites) == list(right.sites) == [Site(1, "q", "")]  # each by itself
    assert [str(site) for site in right.named_as(left).sites] == ["decoder.block.layer.0.SelfAttention.q of layer 1"]


def test_blocks_are_numbered_as_in_the_other_adapter(tmp_path: Path) -> None:
    blocks = [f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn1.to_q" for i in range(3)]
    left = load_adapter(write_modules(tmp_path / "left", *blocks))
    right = load_adapter(write_modules(tmp_path / "right", *blocks[1:]))
    assert [site.layer for site in right.sites] == [1, 2] and "numbered through" in right.remarks[0]
    assert [site.layer for site in right.named_as(left).sites] == [2, 3] and not right.named_as(left).remarks


def test_two_modules_in_two_wrappers_are_refused(tmp_path: Path) -> None:
    folder = write_modules(tmp_path / "a", "layers.0.q_proj", "_orig_mod.layers.0.q_proj")
    with pytest.raises(UserError, match=r"_orig_mod\.layers\.0\.q_proj and layers\.0\.q_proj are one module"):
        load_adapter(folder)


@pytest.mark.parametrize("wrapper", ["", "_orig_mod.", "module.", "_fsdp_wrapped_module.", "net.base_model.model."])
def test_an_anchored_alpha_pattern_holds_in_any_wrapper(tmp_path: Path, wrapper: str) -> None:
    modules = [f"{wrapper}model.layers.{n}.q_proj" for n in (0, 1)]
    folder = write_modules(tmp_path / "a", *modules, lora_alpha=1, alpha_pattern={r"^model.layers.0.q_proj": 4})
    assert [lora.scale for lora in load_adapter(folder).sites.values()] == [2.0, 0.5]


def test_a_magnitude_makes_a_dora_whatever_the_config_says(tmp_path: Path) -> None:
    folder = write_modules(tmp_path / "a", "layers.0.q_proj", use_dora=False)
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"base_model.model.layers.0.q_proj.lora_magnitude_vector": torch.ones(WIDTH)}, folder / WEIGHTS)
    adapter = load_adapter(folder)
    assert adapter.direction_only and "compares its direction" in adapter.remarks[0]


# Layers that fuse q, k and v.

NEOX = {"model_type": "gpt_neox", "hidden_size": WIDTH, "num_attention_heads": 4}
MODULE = "gpt_neox.layers.0.attention.query_key_value"


def write_base(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rows_of(adapter: Adapter) -> dict[str, tuple[range, ...] | None]:
    return {site.projection: lora.rows for site, lora in adapter.sites.items()}


HEAD_BY_HEAD = {
    letter: tuple(range(4 * n + 12 * head, 4 * n + 4 + 12 * head) for head in range(4))
    for n, letter in enumerate("qkv")
}


def test_a_given_base_tells_the_rows_of_a_fused_layer(tmp_path: Path) -> None:
    folder = write_modules(tmp_path / "a", MODULE, d_out=3 * WIDTH, base_model_name_or_path="some/name")
    assert rows_of(load_adapter(folder)) == {"query_key_value": None}
    assert rows_of(load_adapter(folder, base=write_base(tmp_path / "base", **NEOX))) == HEAD_BY_HEAD
    assert rows_of(load_adapter(folder, base=write_base(tmp_path / "other", **NEOX | {"hidden_size": 2 * WIDTH}))) == {
        "query_key_value": None
    }


def test_a_base_in_the_cache_of_the_hub_tells_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_modules(tmp_path / "a", MODULE, d_out=3 * WIDTH, base_model_name_or_path="some/name")
    cache = tmp_path / "hub" / "models--some--name"
    write_base(cache / "snapshots" / "123", **NEOX)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert rows_of(load_adapter(folder)) == HEAD_BY_HEAD
