"""Variants on a base, side by side in place of its arms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deltaw.errors import UserError
from deltaw.lora.attach import attach
from deltaw.lora.layers import parameters_of
from deltaw.lora.snapshot import adapter_tensors
from deltaw.lora.variants import in_place_of_arms, variant_of
from deltaw.maths.cut import cut
from deltaw.model.projections import projections
from deltaw.model.split import split
from deltaw.run.writer import write_adapter
from tests.support.architectures import ARCHITECTURES
from tests.support.arms import arm
from tests.support.rows import logits

ARMS = [arm("r2-s0"), arm("r3-s0", rank=3, scaling="rslora")]


@pytest.mark.parametrize("name", ["llama", "gpt2", "deberta-v2 two keys", "t5"])
def test_variants_compute_what_their_arms_and_the_base_do(name: str, tmp_path: Path) -> None:
    """In any order and number; behind the block the arms are back."""
    model: Any = ARCHITECTURES[name].build(dtype=torch.float64)
    split(model, ["all-linear"])
    modules = list(projections(model, ["all-linear"]))
    bare = logits(model, 5)
    attach(model, modules, ARMS)
    for k, one in enumerate(ARMS):
        for factor in parameters_of(model, k)[1::2]:
            factor.data.normal_(std=0.05 * one.rank, generator=torch.Generator().manual_seed(one.rank))
    model.double()
    for k, one in enumerate(ARMS):
        write_adapter(tmp_path / one.name, adapter_tensors(model, k), {}, {})
    of_arms = logits(model, 5, repeats=2)
    low, high = (variant_of(one, modules, tmp_path / one.name) for one in ARMS)
    base = variant_of(ARMS[0], modules, tmp_path / "r2-s0", without=modules)
    whole = variant_of(ARMS[1], modules, tmp_path / "r3-s0", k=3)
    with in_place_of_arms(model, [base, high, low, whole]):
        found = logits(model, 5, repeats=4)
    assert_close(found, torch.cat([bare, of_arms[2:], of_arms[:2], of_arms[2:]]), rtol=0, atol=1e-9)
    assert torch.equal(logits(model, 5, repeats=2), of_arms)


def test_a_variant_is_cut_and_dropped_where_it_is_told(tmp_path: Path) -> None:
    layers = [nn.Linear(6, 8), nn.Linear(8, 7)]
    base = nn.Sequential(*layers).double()
    attach(base, ["0", "1"], ARMS)
    for factor in parameters_of(base, 1):
        factor.data.normal_()
    base.double()
    write_adapter(tmp_path / "arm", adapter_tensors(base, 1), {}, {})
    A, B = (factor.detach() for factor in parameters_of(base, 1)[:2])
    A_1, B_1 = cut(A, B, 1)
    x = torch.randn(2, 6, dtype=torch.float64)
    with in_place_of_arms(base, [variant_of(ARMS[1], ["0", "1"], tmp_path / "arm", k=1, without=["1"])]):
        found = base(x)
    assert_close(found, layers[1](layers[0](x) + ARMS[1].scale * x @ (B_1 @ A_1).T))


def test_a_snapshot_that_is_gone_or_broken_is_named(tmp_path: Path) -> None:
    for content in (None, b"no tensors"):
        if content:
            (tmp_path / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read .* train the run again"):
            variant_of(ARMS[0], ["0"], tmp_path)
