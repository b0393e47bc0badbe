"""The tables and remarks of compared adapters, and which adapters cannot be compared."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from deltaw import compare, load_adapter, similarity
from deltaw.analysis.comparable import base_warning
from deltaw.analysis.compare import Pairing, compare_all
from deltaw.errors import UserError
from deltaw.maths.random_subspaces import random_mean, random_p, random_sd
from deltaw.run.adapter import Adapter, Lora
from deltaw.run.directory import RunDirectory
from tests.support.folders import WIDTH, write_adapter, write_run


@pytest.fixture
def adapters(tmp_path: Path) -> tuple[Adapter, Adapter]:
    left, right = (write_adapter(tmp_path / f"r{rank}", rank=rank, seed=rank) for rank in (2, 5))
    return load_adapter(left), load_adapter(right)


def with_first_site(adapter: Adapter, lora: Lora | None) -> Adapter:
    """`adapter` with `lora` at its first site, or without this site."""
    site, *others = adapter.sites
    kept = {other: adapter.sites[other] for other in others}
    return replace(adapter, sites=kept if lora is None else {site: lora} | kept)


def test_a_row_per_cell_holds_phi_beside_chance(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    table = compare(left, right, "A").phi
    assert list(table.columns) == [
        *("left", "right", "step_left", "step_right", "layer", "projection", "basis"),
        *("i", "j", "phi", "null_mean", "null_sd", "p_value", "reason"),
    ]
    assert len(table) == 8 * 2 * 5
    for site in left.sites:
        cells = table[(table.layer == site.layer) & (table.projection == site.projection)]
        i, j = torch.tensor(cells.i.to_numpy()), torch.tensor(cells.j.to_numpy())
        expected = similarity(left.A(site), right.A(site))
        assert_close(torch.tensor(cells.phi.to_numpy()), expected[i - 1, j - 1])
        assert_close(torch.tensor(cells.null_mean.to_numpy()), random_mean(i, j, WIDTH))
        assert_close(torch.tensor(cells.null_sd.to_numpy()), random_sd(i, j, WIDTH))
        assert cells.p_value.to_numpy() == pytest.approx(random_p(cells.phi.to_numpy(), i.numpy(), j.numpy(), WIDTH))


def test_all_means_the_bases_that_the_adapters_have(tmp_path: Path, adapters: tuple[Adapter, Adapter]) -> None:
    without = compare(*adapters)
    assert set(without.phi.basis) == set(without.sites.basis) == {"A", "input", "output"}
    assert "update, A − A₀, needs the factors before the first step" in without.remarks[0]
    with pytest.raises(UserError, match="left_start="):
        compare(*adapters, basis="update")
    with pytest.raises(UserError, match="'B'"):
        compare(*adapters, basis="B")
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r5-s0"))
    both = compare(run.adapter("r2-s0"), run.adapter("r5-s0"))
    assert set(both.pairs.basis) == {"A", "update", "input", "output"} and both.remarks == []


def test_a_row_per_pair_site_and_basis_sums_up_its_cells(adapters: tuple[Adapter, Adapter]) -> None:
    comparison = compare(*adapters)
    cells = comparison.phi.merge(comparison.pairs, on=["layer", "projection", "basis"])
    assert len(comparison.pairs) == 8 * 3
    for name, i, j in (("first", 1, 1), ("row", 1, 5), ("corner", 2, 5)):
        there = cells[(cells.i == i) & (cells.j == j)]
        assert len(there) == 8 * 3
        for kind, column in (("phi", "phi"), ("null", "null_mean"), ("p", "p_value")):
            assert there[f"{kind}_{name}"].to_numpy() == pytest.approx(there[column].to_numpy())
    assert comparison.pairs.cos2.map(np.mean).to_numpy() == pytest.approx(comparison.pairs.phi_corner.to_numpy())


def test_k_star_cos2_is_the_mean_of_the_counted_directions(adapters: tuple[Adapter, Adapter]) -> None:
    pairs = compare_all([Pairing(*adapters), Pairing(adapters[0], adapters[0])], ["A"]).pairs
    assert set(pairs.k_star) == {0, 2}
    assert pairs.k_star_cos2.isna().tolist() == (pairs.k_star == 0).tolist()
    assert pairs.k_star_cos2[pairs.k_star == 2].to_numpy() == pytest.approx(1)


def test_several_threads_give_the_tables_of_one_thread(adapters: tuple[Adapter, Adapter]) -> None:
    one = compare(*adapters)
    torch.set_num_threads(4)
    several = compare(*adapters)
    assert torch.get_num_threads() == 4
    torch.set_num_threads(1)
    for name in ("phi", "pairs", "sites"):
        assert getattr(one, name).equals(getattr(several, name))


def test_each_pair_is_compared_once_and_has_cells_only_where_it_asks_for_them(
    adapters: tuple[Adapter, Adapter],
) -> None:
    left, right = adapters
    twice = compare_all([Pairing(left, right), Pairing(right, left, cells=False), Pairing(left, right)], ["A"])
    assert twice.phi[["left", "right"]].drop_duplicates().values.tolist() == [[left.name, right.name]]
    assert len(twice.pairs) == 2 * 8
    forth, back = (twice.pairs[twice.pairs.left == adapter.name] for adapter in (left, right))
    assert forth.phi_corner.to_numpy() == pytest.approx(back.phi_corner.to_numpy())


def test_tables_hold_names_and_steps_of_the_arms(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r5-s0"))
    table = compare(run.adapter("r2-s0", step=0), run.adapter("r5-s0"), "A").phi
    assert table[["left", "right", "step_left", "step_right"]].drop_duplicates().values.tolist() == [
        ["r2-s0", "r5-s0", 0, 10]
    ]


def test_a_folder_has_no_step(adapters: tuple[Adapter, Adapter]) -> None:
    assert compare(*adapters).phi[["step_left", "step_right"]].isna().all(axis=None)


def test_a_row_per_adapter_site_and_basis_describes_its_directions(adapters: tuple[Adapter, Adapter]) -> None:
    sites = compare(*adapters).sites
    assert len(sites) == 2 * 8 * 3
    left = adapters[0]
    site = next(iter(left.sites))
    values = {
        "A": torch.linalg.svdvals(left.A(site).double()),
        "input": torch.linalg.svdvals(8 * left.B(site).double() @ left.A(site).double())[:2],
    }
    for basis, expected in values.items():
        first = sites[(sites.arm == left.name) & (sites.basis == basis)].iloc[0]
        assert [first.layer, first.projection, first.module] == [1, "q", "layers.0.q_proj"]
        assert [first.d_in, first.d_out, first["rank"], first.numerical_rank, first.scale] == [16, 16, 2, 2, 8]
        assert first.singular_values == pytest.approx(expected.tolist())
        assert first.norm == pytest.approx(expected.norm().item())
        assert np.isnan(first.moved)


def test_an_update_of_zero_has_no_phi_and_says_why(tmp_path: Path) -> None:
    left = load_adapter(write_adapter(tmp_path / "zero", rank=2, B=0))
    right = load_adapter(write_adapter(tmp_path / "right", rank=4, seed=1))
    comparison = compare(left, right)
    on_input = comparison.phi[comparison.phi.basis == "input"]
    assert on_input.phi.isna().all() and set(on_input.reason) == {"i is beyond the 0 directions of the left adapter"}
    pairs = comparison.pairs[comparison.pairs.basis == "input"]
    assert pairs.k_star.isna().all() and set(pairs.reason) == {"the left adapter has no direction: ΔW is 0"}
    assert comparison.phi[comparison.phi.basis == "A"].reason.isna().all()


def test_k_star_is_undefined_where_dimension_alone_shares_directions(tmp_path: Path) -> None:
    left, right = (load_adapter(write_adapter(tmp_path / str(seed), rank=9, seed=seed)) for seed in (1, 2))
    pairs = compare(left, right, "A").pairs
    assert pairs.k_star.isna().all() and pairs.phi_first.notna().all()
    assert set(pairs.reason) == {"k_star: of 9 and 9 directions in ℝ^16, 2 are shared by dimension alone"}


def test_a_remark_names_a_shared_start(tmp_path: Path, adapters: tuple[Adapter, Adapter]) -> None:
    copy = load_adapter(write_adapter(tmp_path / "copy", rank=2, seed=2, B=3))
    assert "Shared initialisation: the rows of A of" in " ".join(compare(adapters[0], copy).remarks)
    assert "Shared initialisation" not in " ".join(compare(*adapters).remarks)


def test_a_remark_names_a_frozen_a(tmp_path: Path, adapters: tuple[Adapter, Adapter]) -> None:
    start = write_adapter(tmp_path / "start", rank=5, seed=5, B=0)
    frozen = load_adapter(adapters[1].folder, start)
    moved = load_adapter(adapters[0].folder, write_adapter(tmp_path / "other", rank=2, seed=7, B=0))
    comparison = compare(moved, frozen)
    assert f"A of {frozen.name} is frozen or nearly so" in " ".join(comparison.remarks)
    assert set(comparison.pairs.reason[comparison.pairs.basis == "update"]) == {
        "the right adapter has no direction: A has not moved"
    }


def test_an_arm_that_altered_its_base_is_refused_without_its_start(adapters: tuple[Adapter, Adapter]) -> None:
    with pytest.raises(UserError, match=r"B₀ ≠ 0 .* left_start="):
        compare(adapters[0], replace(adapters[1], alters_base=True))


def test_different_sites_are_refused(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    for pair in ((with_first_site(left, None), right), (left, with_first_site(right, None))):
        with pytest.raises(UserError, match=r"adapts q of layer 1, .* does not"):
            compare(*pair)


def test_different_widths_are_refused(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    with pytest.raises(UserError, match=r"q of layer 1 maps \(16, 16\).*\(32, 16\)"):
        compare(left, with_first_site(right, Lora(5, 32, WIDTH, 1.0)))


def test_arms_of_two_bases_are_refused(tmp_path: Path) -> None:
    left, right = (RunDirectory(write_run(tmp_path / base, "r2-s0", base=base * 64)).adapter("r2-s0") for base in "ab")
    with pytest.raises(UserError, match=r"base aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
        compare(left, right)


def test_two_names_of_a_base_give_one_warning(
    adapters: tuple[Adapter, Adapter], caplog: pytest.LogCaptureFixture
) -> None:
    left, right = adapters[0], replace(adapters[1], base="other")
    comparison = compare(left, right)
    warning = base_warning(left, right)
    assert warning is not None and "'tiny'" in warning and "'other'" in warning
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, warning)]
    assert warning in comparison.remarks
