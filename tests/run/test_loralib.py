"""Adapters as loralib stores them, whose MergedLinear holds the A of q and v in one matrix, and their B in another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import conv1d
from torch.testing import assert_close

from deltaw import load_adapter
from deltaw.errors import UserError
from deltaw.run.weights import find_weight, read_weight
from tests.support.folders import WIDTH

LAYER = "transformer.h.0.attn.c_attn"
RANK = 2


def write_merged(
    folder: Path, enabled: str, module: str = LAYER, end: str = "", d_out: int = WIDTH, **config: object
) -> Path:
    """Random factors of the enabled ones of q, k and v."""
    generator = torch.Generator().manual_seed(0)
    count = len(enabled)
    folder.mkdir()
    save_file(
        {
            f"{module}.lora_A{end}": torch.randn(count * RANK, WIDTH, generator=generator),
            f"{module}.lora_B{end}": torch.randn(count * d_out, RANK, generator=generator),
        },
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4} | config))
    return folder


def merged_update(folder: Path, enabled: str) -> dict[str, Tensor]:
    """ΔW of q, k and v without the scale, as loralib computes it: by a convolution in groups."""
    A, B = load_file(folder / "adapter_model.safetensors").values()
    update = conv1d(A[None], B[:, :, None], groups=len(enabled))[0]
    return dict(zip(enabled, update.split(WIDTH), strict=True))


@pytest.mark.parametrize(
    ("enabled", "config"),
    [
        ("qv", {}),
        ("qkv", {}),
        ("qv", {"enable_lora": [True, False, True]}),
        ("qk", {"enable_lora": [True, True, False]}),
        ("v", {"enable_lora": [False, False, True]}),
    ],
)
@pytest.mark.parametrize("end", ["", ".weight"])
def test_each_part_has_the_update_that_loralib_computes(
    tmp_path: Path, enabled: str, config: dict[str, Any], end: str
) -> None:
    folder = write_merged(tmp_path / "a", enabled, end=end, **config)
    adapter, expected = load_adapter(folder), merged_update(folder, enabled)
    found = {site.projection: adapter.B(site) @ adapter.A(site) for site in adapter.sites}
    assert {site.layer for site in adapter.sites} == {1} and found.keys() == set(enabled)
    assert {(lora.rank, lora.d_in, lora.d_out, lora.scale) for lora in adapter.sites.values()} == {(2, WIDTH, WIDTH, 2)}
    for letter, update in expected.items():
        assert_close(found[letter], update)


def test_what_the_papers_code_alone_tells_is_said(tmp_path: Path) -> None:
    assert [
        "which count as q and v" in remark for remark in load_adapter(write_merged(tmp_path / "a", "qv")).remarks
    ] == [True]
    told = write_merged(tmp_path / "b", "qv", enable_lora=[True, False, True])
    assert load_adapter(told).remarks == load_adapter(write_merged(tmp_path / "c", "qkv")).remarks == ()


@pytest.mark.parametrize("transposed", [False, True])
def test_the_frozen_weight_of_a_part_is_found_in_the_fused_layer_of_the_base(tmp_path: Path, transposed: bool) -> None:
    W = torch.arange(3 * WIDTH * WIDTH).float().view(3 * WIDTH, WIDTH)
    (tmp_path / "base").mkdir()
    save_file({f"{LAYER}.weight": W.T.contiguous() if transposed else W}, tmp_path / "base" / "model.safetensors")
    adapter = load_adapter(write_merged(tmp_path / "a", "qv", fan_in_fan_out=transposed))
    q, v = adapter.sites
    for site, rows in ((q, W[:WIDTH]), (v, W[-WIDTH:])):
        weight = find_weight(tmp_path / "base", site.module, (WIDTH, WIDTH), transposed, adapter.split)
        assert_close(read_weight(weight), rows)


@pytest.mark.parametrize(
    ("enabled", "config"),
    [
        ("qk", {"enable_lora": [True, True, True]}),
        ("qv", {"d_out": 8}),
        ("qkvo", {}),
        ("qv", {"enable_lora": [False] * 3}),
    ],
)
def test_rows_that_nothing_assigns_are_refused(tmp_path: Path, enabled: str, config: dict[str, Any]) -> None:
    folder = write_merged(tmp_path / "a", enabled, **config)
    with pytest.raises(UserError, match=rf"{LAYER} has A .* as loralib's MergedLinear"):
        load_adapter(folder)


def test_plain_layers_of_loralib_are_read_under_their_own_names(tmp_path: Path) -> None:
    folder = write_merged(tmp_path / "a", "q", module="transformer.h.3.attn.q_proj")
    assert [(site.layer, site.projection) for site in load_adapter(folder).sites] == [(4, "q")]
