"""`Comparison.merge` against dense ΔW, for adapters of every kind."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltaw import compare, load_adapter
from deltaw.analysis import columns
from deltaw.analysis.compare import Pairing, compare_all
from deltaw.analysis.merge import over_sites
from deltaw.maths.merge import deviation
from deltaw.run.adapter import Adapter
from tests.support.folders import WIDTH, write_adapter


def dense(adapter: Adapter) -> list[Tensor]:
    """ΔW of every site."""
    found = []
    for site, lora in adapter.sites.items():
        update = adapter.B(site).double() @ adapter.A(site).double()
        if adapter.alters_base and adapter.start:
            update -= adapter.start.B(site).double() @ adapter.start.A(site).double()
        found.append(lora.scale * update)
    return found


@pytest.mark.parametrize(
    "config",
    [{}, {"use_rslora": True}, {"alpha_pattern": {"layers.1.q_proj": 64}}, {"alpha_pattern": {"layers.1.q_proj": -8}}],
)
def test_a_row_has_the_numbers_of_dense_updates(tmp_path: Path, config: dict[str, Any]) -> None:
    one = load_adapter(write_adapter(tmp_path / "a", 3, seed=1, **config))
    other = load_adapter(write_adapter(tmp_path / "b", 5, seed=2))
    check(one, other)


def test_an_update_that_began_with_an_altered_base_is_what_it_learned(tmp_path: Path) -> None:
    start = write_adapter(tmp_path / "start", 3, seed=3, init_lora_weights="pissa")
    now = write_adapter(tmp_path / "now", 3, seed=4, init_lora_weights="pissa")
    check(load_adapter(now, start=start), load_adapter(write_adapter(tmp_path / "b", 2, seed=2)))


def check(one: Adapter, other: Adapter) -> None:
    rows = compare(one, other).merge
    assert list(rows) == list(columns.MERGE) and len(rows) == len(one.sites)
    left, right = dense(one), dense(other)
    assert rows.norm_left.to_numpy() == pytest.approx([float(update.norm()) for update in left])
    assert rows.norm_right.to_numpy() == pytest.approx([float(update.norm()) for update in right])
    assert (rows.norm_ratio * rows.norm_left).to_numpy() == pytest.approx(rows.norm_right.to_numpy())
    cosines = [
        float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0)) for x, y in zip(left, right, strict=True)
    ]
    assert rows.cosine.to_numpy() == pytest.approx(cosines, abs=1e-9)
    assert rows.random_sd.unique() == pytest.approx([1 / WIDTH])
    one_long, other_long = (torch.cat([update.flatten() for update in side]) for side in (left, right))
    assert over_sites(rows).cosine == pytest.approx(float(torch.cosine_similarity(one_long, other_long, dim=0)))


def test_chance_is_that_of_the_widths_and_a_whole_pair_is_the_sum_of_its_rows(tmp_path: Path) -> None:
    left, right = (load_adapter(write_adapter(tmp_path / f"r{rank}", rank, seed=rank)) for rank in (3, 5))
    rows = compare(left, right).merge
    for side in ("input", "output"):
        assert rows[f"chance_{side}"].unique() == pytest.approx([1 / WIDTH])
        expected = [deviation(WIDTH, one, other) for one, other in zip(rows.rank_left, rows.rank_right, strict=True)]
        assert rows[f"sd_{side}"].tolist() == pytest.approx(expected)
    each = zip(dense(left), dense(right), strict=True)
    sizes = torch.tensor([[float((y @ x.T).norm()), float((x @ x.T).norm())] for x, y in each]).square().sum(dim=0)
    assert over_sites(rows).effects[0] == pytest.approx(float((sizes[0] / sizes[1]).sqrt()))


def test_sides_that_change_places_keep_their_numbers(tmp_path: Path) -> None:
    a, b = write_adapter(tmp_path / "a", 3, seed=1), write_adapter(tmp_path / "b", 5, seed=2)
    there, back = compare(a, b).merge, compare(b, a).merge
    for name in ("cosine", "overlap_input", "overlap_output"):
        assert there[name].to_numpy() == pytest.approx(back[name].to_numpy())
    assert (there.norm_ratio * back.norm_ratio).to_numpy() == pytest.approx(1)


def test_an_update_of_0_has_a_norm_and_nothing_else(tmp_path: Path) -> None:
    rows = compare(write_adapter(tmp_path / "a", 3, seed=1), write_adapter(tmp_path / "b", 3, seed=1, B=0)).merge
    assert (rows.norm_right == 0).all() and (rows.norm_ratio == 0).all()
    assert rows[["cosine", "overlap_input", "sd_input", "overlap_output", "rank_right"]].isna().all(axis=None)
    assert (rows.effect_on_left == 0).all() and rows.effect_on_right.isna().all()
    together = over_sites(rows)
    assert np.isnan(together.cosine) and (together.norm_ratio, together.effects[0]) == (0, 0)


@pytest.mark.parametrize("size", [1e-35, 1e35])
def test_factors_of_any_size_are_added_as_those_of_size_1(tmp_path: Path, size: float) -> None:
    left, right = (write_adapter(tmp_path / name, 3, seed=seed) for seed, name in enumerate("ab"))
    sized = []
    for source in (left, right):
        folder = tmp_path / f"{source.name}-sized"
        shutil.copytree(source, folder)
        tensors = load_file(source / "adapter_model.safetensors")
        save_file({name: tensor * size for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
        sized.append(folder)
    rows, expected = compare(sized[0], sized[1]).merge, compare(left, right).merge
    numbers = list(expected.columns[expected.columns.get_loc("norm_ratio") :])
    assert rows[numbers].to_numpy() == pytest.approx(expected[numbers].to_numpy(), rel=1e-5)
    assert rows.norm_left.to_numpy() == pytest.approx(size**2 * expected.norm_left.to_numpy(), rel=1e-5)
    together, whole = over_sites(rows), over_sites(expected)
    assert (together.cosine, *together.effects) == pytest.approx((whole.cosine, *whole.effects), rel=1e-5)


def test_without_b_there_is_no_row(tmp_path: Path) -> None:
    left, right = (load_adapter(write_adapter(tmp_path / name, 3, seed=seed)) for seed, name in enumerate("ab"))
    assert compare_all([Pairing(left, right)], ["A"]).merge.empty
    assert len(compare_all([Pairing(left, right)], ["output"]).merge) == len(left.sites)
