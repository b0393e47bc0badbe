"""The tables and remarks of compared adapters, and which adapters cannot be compared."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from deltaw import compare, load_adapter, similarity
from deltaw.analysis.comparable import at_shared_sites, base_warning, sites_in_words
from deltaw.analysis.compare import Pairing, compare_all
from deltaw.errors import UserError
from deltaw.maths.random_subspaces import random_mean, random_p, random_sd
from deltaw.run.adapter import Adapter, Lora, Site
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
    assert without.remarks == []
    assert "update, A − A₀, needs the factors before the first step" in without.missing[0]
    with pytest.raises(UserError, match="load_adapter") as error:
        compare(*adapters, basis="update")
    assert "_start=" not in str(error.value)  # which is no argument of a function
    with pytest.raises(UserError, match="'B'"):
        compare(*adapters, basis="B")
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r5-s0"))
    both = compare(run.adapter("r2-s0"), run.adapter("r5-s0"))
    assert set(both.pairs.basis) == {"A", "update", "input", "output"} and both.remarks == both.missing == []


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


def test_an_adapter_compared_with_itself_is_said_first(tmp_path: Path) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=2))
    assert (
        compare(adapter, tmp_path / "a").remarks[0]
        == f"{adapter.name} and {adapter.name} are one adapter: by construction they share everything"
    )


def test_rows_of_rank_1_tell_nothing_of_a_start(tmp_path: Path) -> None:
    one, other = (write_adapter(tmp_path / name, rank=1, seed=2, B=B) for name, B in (("a", 1), ("b", 3)))
    assert compare(one, other).remarks == []


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
    with pytest.raises(UserError, match=r"B₀ ≠ 0 .* load_adapter\(folder, start=…\)"):
        compare(adapters[0], replace(adapters[1], alters_base=True))


@pytest.mark.parametrize(
    ("left", "right", "shared", "remark"),
    [
        (("qv", 4), ("qkvo", 4), "q and v of layers 1 to 4", "left out are 8 of right (k and o of layers 1 to 4)"),
        (("qv", 2), ("qv", 4), "q and v of layers 1 to 2", "left out are 4 of right (q and v of layers 3 to 4)"),
        (
            ("qk", 1),
            ("qv", 4),
            "q of layer 1",
            "left out are 1 of left (k of layer 1) and 7 of right (q of layers 2 to 4, v of layers 1 to 4)",
        ),
    ],
)
def test_adapters_are_compared_at_the_sites_that_both_have(
    tmp_path: Path, left: tuple[str, int], right: tuple[str, int], shared: str, remark: str
) -> None:
    one, other = (
        replace(load_adapter(write_adapter(tmp_path / name, 2, layers, seed, projections=projections)), name=name)
        for seed, (name, (projections, layers)) in enumerate({"left": left, "right": right}.items())
    )
    comparison = compare(one, other, "A")
    assert sites_in_words(at_shared_sites([one, other])[0].sites) == shared
    assert set(zip(comparison.pairs.layer, comparison.pairs.projection, strict=True)) == {
        (site.layer, site.projection) for site in one.sites.keys() & other.sites.keys()
    }
    assert shared in comparison.remarks[0] and comparison.remarks[0].endswith(remark)


def test_values_at_shared_sites_do_not_depend_on_the_others(tmp_path: Path, adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    alone = compare(with_first_site(left, None), with_first_site(right, None))
    beside = compare(with_first_site(left, None), right)
    assert alone.phi.equals(beside.phi)
    measures = [name for name in alone.pairs if not str(name).startswith("k_star")]  # its level is divided by the sites
    assert alone.pairs[measures].equals(beside.pairs[measures])


def test_adapters_without_a_shared_site_are_refused_with_what_each_has(tmp_path: Path) -> None:
    left, right = (write_adapter(tmp_path / name, 2, 3, projections=name) for name in ("qv", "ko"))
    with pytest.raises(UserError, match=r"qv adapts q and v of layers 1 to 3; .*ko adapts k and o of layers 1 to 3"):
        compare(left, right)


def test_folders_can_be_compared_by_their_paths(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    assert compare(left.folder, str(right.folder), "A").phi.equals(compare(left, right, "A").phi)
    with pytest.raises(UserError, match="device=gpu"):
        compare(left, right, device="gpu")


def test_results_print_short(tmp_path: Path) -> None:
    left, right = (load_adapter(write_adapter(tmp_path / str(rank), rank, 60, B=0)) for rank in (2, 5))
    comparison = compare(left, right)
    assert len(repr(comparison).splitlines()) < 10 and len(repr(comparison)) < 1200
    assert "at 120 sites" in repr(comparison) and comparison.remarks[0] in repr(comparison)
    assert repr(left) == f"Adapter('{tmp_path}/2', base='tiny', 120 sites, rank 2)"
    site = Site(1, "nowhere", "")
    with pytest.raises(UserError, match=r"has no site .*nowhere.*: give one of its sites"):
        left.A(site)


def test_different_widths_are_refused(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    with pytest.raises(UserError, match=r"q of layer 1 maps \(16, 16\).*\(32, 16\)"):
        compare(left, with_first_site(right, Lora(5, 32, WIDTH, 1.0)))


def test_arms_of_two_bases_are_refused(tmp_path: Path) -> None:
    left, right = (RunDirectory(write_run(tmp_path / base, "r2-s0", base=base * 64)).adapter("r2-s0") for base in "ab")
    with pytest.raises(UserError, match=r"base aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
        compare(left, right)


def test_two_names_of_a_base_are_remarked_once(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters[0], replace(adapters[1], base="other")
    [remark] = compare(left, right).remarks
    assert remark == base_warning(left, right) and "'tiny'" in remark and "'other'" in remark
    assert "names no base" in compare(left, replace(right, base="")).remarks[0]


@pytest.mark.parametrize("basis", ["all", "A"])
def test_an_adapter_that_learnt_nothing_is_said_first(
    tmp_path: Path, adapters: tuple[Adapter, Adapter], basis: str
) -> None:
    zero = load_adapter(write_adapter(tmp_path / "zero", rank=4, B=0))
    other_base = replace(zero, base="other")
    comparison = compare(other_base, adapters[1], basis)
    assert comparison.remarks[0].startswith(f"{zero.name} learned nothing: ΔW is 0 at every compared site")
    assert "names the base" in comparison.remarks[1]
    assert comparison.sites[comparison.sites.arm == zero.name].zero.all()
    assert not comparison.sites[comparison.sites.arm != zero.name].zero.any()


def test_sites_without_an_update_are_counted(tmp_path: Path, adapters: tuple[Adapter, Adapter]) -> None:
    folder = write_adapter(tmp_path / "partly", rank=4, seed=9)
    tensors = load_file(folder / "adapter_model.safetensors")
    for layer in (1, 2):
        tensors[f"base_model.model.layers.{layer}.v_proj.lora_B.weight"].zero_()
    save_file(tensors, folder / "adapter_model.safetensors")
    remark = compare(folder, adapters[1], "A").remarks[0]
    assert remark == f"{folder}: ΔW is 0 at 2 of the 8 compared sites (v of layers 2 to 3)"


def test_an_adapter_of_scale_0_learnt_nothing(tmp_path: Path, adapters: tuple[Adapter, Adapter]) -> None:
    comparison = compare(write_adapter(tmp_path / "off", 4, seed=9, lora_alpha=0), adapters[1])
    assert "learned nothing" in comparison.remarks[0]
    assert (comparison.pairs[comparison.pairs.basis == "input"].rank_left == 0).all()


@pytest.mark.parametrize(("max_steps", "step", "unfinished"), [(10, 10, False), (30, 10, True), (30, 0, False)])
def test_an_unfinished_run_is_remarked(tmp_path: Path, max_steps: int, step: int, unfinished: bool) -> None:
    path = write_run(tmp_path / "run", "r2-s0", "r5-s0")
    (path / "config.yaml").write_text(f"trainer:\n  max_steps: {max_steps}\n")
    run = RunDirectory(path)
    remarks = " ".join(compare(run.adapter("r2-s0", step), run.adapter("r5-s0", step), "A").remarks)
    words = "r2-s0 and r5-s0: the run is not finished, and step 10 of 30 is compared"
    assert (words in remarks) == unfinished == ("finished" in remarks)


@pytest.mark.parametrize("scale", [3e38, 1e-30])
def test_phi_of_factors_at_the_ends_of_float32_is_that_of_moderate_factors(tmp_path: Path, scale: float) -> None:
    other = write_adapter(tmp_path / "other", 5, seed=1)
    moderate, start = write_adapter(tmp_path / "moderate", 2), write_adapter(tmp_path / "start", 2, seed=7, B=0)
    extreme = write_adapter(tmp_path / "extreme", 2)
    tensors = load_file(extreme / "adapter_model.safetensors")
    largest = max(float(tensor.abs().max()) for tensor in tensors.values())
    scaled = {name: tensor * (scale / largest) for name, tensor in tensors.items()}
    save_file(scaled, extreme / "adapter_model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(load_adapter(extreme, start=start), other).phi
    expected = compare(load_adapter(moderate), other).phi
    np.testing.assert_allclose(found.phi, expected.phi, atol=1e-5)
