"""Strangers' configs and weights: each value is used as its type tells, or refused by name before a tensor is read."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deltaw import compare, load_adapter
from deltaw.errors import UserError
from deltaw.run.peft_files import CONFIG, SPLIT, WEIGHTS, alphas, read_base_config
from deltaw.run.tensors import read_header
from tests.support.folders import WIDTH, write_adapter

Q1 = "base_model.model.layers.0.q_proj"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("lora_alpha", ["16", None, True, [16], {}, 10**400, 1e39, float("nan"), float("-inf")]),
        ("alpha_pattern", [[], "q_proj", 8, {"q_proj": "8"}, {"q_proj": None}, {"q_proj": float("nan")}]),
        ("rank_pattern", [[], "q_proj", 8, {"q_proj": 1.5}, {"q_proj": {}}, {"q_proj": 2**64}]),
        ("target_modules", [8, {}, [1], [["q_proj"]]]),
        ("target_parameters", ["experts", 8, {}, [None]]),
        ("modules_to_save", ["score", True, [0]]),
        ("init_lora_weights", [1, [], {}]),
        ("base_model_name_or_path", [1, [], {}, "\ud800"]),
        ("use_rslora", ["true", 1, []]),
        ("use_dora", ["false", 0, {}]),
        ("fan_in_fan_out", ["false", 0, []]),
        ("enable_lora", [True, [True], ["q", "k", "v"]]),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(tmp_path: Path, key: str, values: list[object]) -> None:
    write_adapter(tmp_path / "a", rank=2, layers=1)
    for value in values:
        config = {"peft_type": "LORA", "lora_alpha": 16, key: value}
        (tmp_path / "a" / CONFIG).write_text(json.dumps(config))
        with pytest.raises(UserError, match=rf"{CONFIG}: .*{key}.* is .*, not .*: put it right"):
            load_adapter(tmp_path / "a")


def test_what_peft_writes_for_settings_that_are_not_set_is_read(tmp_path: Path) -> None:
    keys = "base_model_name_or_path target_modules target_parameters modules_to_save rank_pattern alpha_pattern".split()
    unset = dict.fromkeys([*keys, "use_rslora", "use_dora", "fan_in_fan_out"])
    plain = load_adapter(write_adapter(tmp_path / "plain", rank=2))
    assert load_adapter(write_adapter(tmp_path / "a", rank=2, **unset)).sites == plain.sites  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "[" * 2000 + "]" * 2000,
        '{"peft_type": "LORA", "lora_alpha": 16, "x": ' + "[" * 2000 + "]" * 2000 + "}",
        '{"lora_alpha": ' + "9" * 5000 + "}",
        b'{"peft_type": "LORA\xff"}',
        b"\x00\x00",
    ],
)
def test_a_config_that_is_no_json_of_this_world_is_refused(tmp_path: Path, content: str | bytes) -> None:
    file = write_adapter(tmp_path / "a", rank=2, layers=1) / CONFIG
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"{CONFIG} cannot be read"):
        load_adapter(tmp_path / "a")


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    file = write_adapter(tmp_path / "a", rank=2, layers=1) / CONFIG
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert len(load_adapter(tmp_path / "a").sites) == 2


@pytest.mark.parametrize("pattern", ["(", "[", "*", "(?!a)b", r"(a)\1", "a{100000}"])
def test_a_pattern_that_is_none_is_refused(tmp_path: Path, pattern: str) -> None:
    folder = write_adapter(tmp_path / "a", rank=2, layers=1, alpha_pattern={pattern: 8})
    with pytest.raises(UserError, match=r"alpha_pattern has .*, which is no pattern"):
        load_adapter(folder)


def test_a_pattern_that_would_try_every_way_of_repeating_takes_no_time() -> None:
    config: dict[str, Any] = {"lora_alpha": 16, "alpha_pattern": {"(a+)+": 8, "(.*.*.*.*.*.*.*.*)*c": 4}}
    names = ["a" * 100, "a" * 100 + "b", "x." + "a" * 100]
    assert alphas(config, names) == {names[0]: 8, names[1]: 16, names[2]: 8}


def test_the_first_pattern_that_fits_holds() -> None:
    config: dict[str, Any] = {"lora_alpha": 1, "alpha_pattern": {"q_proj": 2, ".*proj": 3, "0.v_proj": 4}}
    assert alphas(config, ["a.0.q_proj", "a.0.v_proj", "a.b"]) == {"a.0.q_proj": 2, "a.0.v_proj": 3, "a.b": 1}


def test_one_factor_in_two_names_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", rank=2, layers=1)
    tensors = load_file(folder / WEIGHTS)
    tensors["layers.0.q_proj.lora_A"] = tensors[f"{Q1}.lora_A.weight"].clone()
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match="one factor in two names"):
        load_adapter(folder)


def fused(**changes: object) -> dict[str, object]:
    return {"blocks": 1, "widths": {"q": WIDTH, "v": WIDTH}, "transposed": False} | changes


@pytest.mark.parametrize(
    "layout",
    [
        "{",
        [],
        {"layers.0": []},
        {"layers.0": fused(blocks="1")},
        {"layers.0": fused(blocks=10**12)},
        {"layers.0": fused(blocks=-1, widths={"q": -WIDTH, "v": -WIDTH})},
        {"layers.0": fused(widths={"q": WIDTH})},
        {"layers.0": fused(widths={"q": WIDTH, "k": -1, "v": WIDTH})},
        {"layers.0": fused(widths={"q": WIDTH + 1, "v": WIDTH})},
    ],
)
def test_a_split_that_does_not_fit_the_factors_is_refused(tmp_path: Path, layout: object) -> None:
    folder = write_adapter(tmp_path / "a", rank=2, layers=1)
    text = layout if isinstance(layout, str) else json.dumps(layout)
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata={SPLIT: text})
    with pytest.raises(UserError, match="has metadata"):
        load_adapter(folder)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 2000, '{"num_attention_heads": "8"}', '{"n_head": -4}', "\xff"])
def test_a_config_of_the_base_that_tells_nothing_leaves_the_fused_layer_whole(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    folder = write_adapter(tmp_path / "a", rank=2, layers=1, base_model_name_or_path=str(tmp_path))
    tensors = {name.replace("v_proj", "c_attn"): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    assert isinstance(read_base_config(str(tmp_path)), dict)
    assert {site.module for site in load_adapter(folder).sites} == {"layers.0.q_proj", "layers.0.c_attn"}


@pytest.mark.parametrize("head_dim", [64.0, "64", [64], {"a": 1}, True, -16])
def test_a_width_of_heads_of_another_type_is_as_unknown(tmp_path: Path, head_dim: object) -> None:
    config = {"model_type": "gpt_neox", "num_attention_heads": 4, "head_dim": head_dim}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = write_adapter(tmp_path / "a", rank=2, layers=1, base_model_name_or_path=str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    A, B = torch.randn(2, WIDTH, generator=generator), torch.randn(3 * WIDTH, 2, generator=generator)
    module = "gpt_neox.layers.0.attention.query_key_value"
    save_file({f"{module}.lora_A.weight": A, f"{module}.lora_B.weight": B}, folder / WEIGHTS)
    assert all(lora.d_out in (WIDTH, 3 * WIDTH) for lora in load_adapter(folder).sites.values())


def fill(value: float, dtype: torch.dtype = torch.float32) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.full_like(tensor, value, dtype=dtype)


def scale(factor: float, dtype: torch.dtype = torch.float32) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.to(dtype) * factor


def rewrite(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    save_file({name: change(tensor) for name, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    "change", [scale(5e37), fill(3.4e38), fill(0.0), fill(1e-45), scale(1e-40), scale(1e-100, torch.float64)]
)
def test_values_of_any_size_are_compared_without_a_warning(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    start = load_adapter(rewrite(write_adapter(tmp_path / "start", rank=2, seed=2, lora_alpha=1e38), change))
    adapter = load_adapter(rewrite(write_adapter(tmp_path / "a", rank=2, lora_alpha=1e38), change), start.folder)
    other = load_adapter(write_adapter(tmp_path / "b", rank=4, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(adapter, other)
    assert found.phi.phi.dropna().between(0, 1).all()


def test_the_size_of_the_values_does_not_change_what_is_found(tmp_path: Path) -> None:
    other = load_adapter(write_adapter(tmp_path / "b", rank=4, seed=1))
    plain = compare(load_adapter(write_adapter(tmp_path / "a", rank=2)), other, basis="input")
    large = compare(load_adapter(rewrite(write_adapter(tmp_path / "l", rank=2), scale(2.0**120))), other, basis="input")
    assert large.phi.phi.to_numpy() == pytest.approx(plain.phi.phi.to_numpy())


@pytest.mark.parametrize("value", [1e39, -1e200, 1e308])
def test_values_that_float32_does_not_hold_are_refused(tmp_path: Path, value: float) -> None:
    adapter = load_adapter(rewrite(write_adapter(tmp_path / "a", rank=2), fill(value, torch.float64)))
    other = load_adapter(write_adapter(tmp_path / "b", rank=4))
    with pytest.raises(UserError, match=r"lora_A.weight holds values up to .*, beyond float32"):
        compare(adapter, other)


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "a", rank=2, layers=1)

    def refuse(path: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=rf"{WEIGHTS} may not be read: run chmod a\+r on it, or ask its owner to"):
        read_header(tmp_path / "a" / WEIGHTS)
