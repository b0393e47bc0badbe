"""Two adapters → tables."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from deltaw import compare, load_adapter, similarity
from deltaw.adapter import Adapter, Factors
from deltaw.chance import random_mean, random_sd
from deltaw.cli import UserError
from deltaw.run import RunDirectory
from deltaw.study import describe_pair, describe_sites
from tests.folders import WIDTH, write_adapter, write_run


@pytest.fixture
def adapters(tmp_path: Path) -> tuple[Adapter, Adapter]:
    left, right = (write_adapter(tmp_path / f"r{rank}", rank=rank, seed=rank) for rank in (2, 5))
    return load_adapter(left), load_adapter(right)


def with_first_site(adapter: Adapter, factors: Factors | None) -> Adapter:
    """`adapter` with other factors at its first site, or without that site."""
    site, *others = adapter.factors
    kept = {other: adapter.factors[other] for other in others}
    return replace(adapter, factors=kept if factors is None else {site: factors} | kept)


def test_a_row_per_cell_holds_phi_beside_chance(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    table = compare(left, right)
    assert list(table.columns) == [
        *("left", "right", "step_left", "step_right", "layer", "projection", "basis"),
        *("i", "j", "phi", "null_mean", "null_sd"),
    ]
    assert len(table) == 8 * 2 * 5
    for site, factors in left.factors.items():
        cells = table[(table.layer == site.layer) & (table.projection == site.projection)]
        i, j = torch.tensor(cells.i.to_numpy()), torch.tensor(cells.j.to_numpy())
        expected = similarity(factors.A, right.factors[site].A)
        assert_close(torch.tensor(cells.phi.to_numpy()), expected[i - 1, j - 1])
        assert_close(torch.tensor(cells.null_mean.to_numpy()), random_mean(i, j, WIDTH))
        assert_close(torch.tensor(cells.null_sd.to_numpy()), random_sd(i, j, WIDTH))


def test_names_and_steps_are_those_of_the_arms(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r5-s0"))
    table = compare(run.adapter("r2-s0", step=0), run.adapter("r5-s0"))
    assert table[["left", "right", "step_left", "step_right"]].drop_duplicates().values.tolist() == [
        ["r2-s0", "r5-s0", 0, 10]
    ]


def test_a_folder_has_no_step(adapters: tuple[Adapter, Adapter]) -> None:
    assert compare(*adapters)[["step_left", "step_right"]].isna().all(axis=None)


def test_a_row_per_side_and_site_describes_the_factors(adapters: tuple[Adapter, Adapter]) -> None:
    sites = describe_sites(*adapters)
    assert len(sites) == 2 * 8
    first = sites.iloc[0]
    A = next(iter(adapters[0].factors.values())).A
    assert [first.side, first.layer, first.projection, first.module] == ["left", 1, "q", "layers.0.q_proj"]
    assert [first.d_in, first.d_out, first["rank"], first.numerical_rank, first.scale] == [16, 16, 2, 2, 8]
    assert first.singular_values == pytest.approx(torch.linalg.svdvals(A.double()).tolist())


def test_different_sites_are_named(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    for pair in ((with_first_site(left, None), right), (left, with_first_site(right, None))):
        with pytest.raises(UserError, match=r"adapts q of layer 1, .* does not"):
            compare(*pair)


def test_different_widths_are_named(adapters: tuple[Adapter, Adapter]) -> None:
    left, right = adapters
    wide = Factors(torch.randn(5, 32), torch.randn(WIDTH, 5), 1.0)
    with pytest.raises(UserError, match=r"q of layer 1 maps \(16, 16\).*\(32, 16\)"):
        compare(left, with_first_site(right, wide))


def test_arms_of_two_bases_are_not_compared(tmp_path: Path) -> None:
    runs = [RunDirectory(write_run(tmp_path / base, "r2-s0", base=base * 64)) for base in "ab"]
    with pytest.raises(UserError, match=r"base aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
        compare(*(run.adapter("r2-s0") for run in runs))


def test_another_name_of_the_base_is_one_warning(
    adapters: tuple[Adapter, Adapter], caplog: pytest.LogCaptureFixture
) -> None:
    left, right = adapters[0], replace(adapters[1], base="other")
    compare(left, right)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, describe_pair(left, right).warning)
    ]
    assert "'tiny'" in caplog.text and "'other'" in caplog.text
