"""What left and right share beyond their control pair, on average over sites and seeds."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, t, ttest_1samp

from deltaw.maths.seeds import OverSeeds, holm, over_seeds
from deltaw.report.sharing import TESTED, Excess, contrast_of, depth_of, excesses
from tests.support.summaries import excess_table, raised

LAYERS = 8
SEEDS = ["seed_left", "seed_right"]


def noise(table: pd.DataFrame, sd: float = 0.02) -> np.ndarray:
    """A number for each seed of left, basis and measure: sites and seeds of right do not vary."""
    groups = table.groupby(["seed_left", "basis", "measure"]).ngroup().to_numpy()
    return np.random.default_rng(0).normal(0, sd, groups.max() + 1)[groups]


def is_of(table: pd.DataFrame, seed: int) -> "pd.Series[bool]":
    return (table[SEEDS] == seed).any(axis=1)


def over(values: "pd.Series[float]") -> OverSeeds:
    """Over the values by two seeds."""
    return over_seeds(values.index.to_frame().to_numpy(), values.to_numpy())


def by_key(found: list[Excess]) -> dict[tuple[str, str], Excess]:
    return {(one.basis, one.measure): one for one in found}


def test_every_basis_and_measure_has_its_means() -> None:
    table = excess_table(3)
    table["pair"] += np.random.default_rng(0).normal(size=len(table))
    table["excess"] = table.pair - table.control
    found = by_key(excesses(table))
    assert len(found) == 4 * 4
    for (basis, measure), one in found.items():
        rows = table[(table.basis == basis) & (table.measure == measure)]
        expected = over(rows.groupby(SEEDS).excess.mean())
        assert one.seeds == 3
        assert (one.pair, one.excess, one.se) == pytest.approx((rows.pair.mean(), expected.mean, expected.se))
        assert (one.control, one.left_shadow, one.right_shadow, one.other_seed) == pytest.approx((0.2, 0.1, 0.1, 0.6))


def test_p_is_students_t_over_seeds_for_all_tests_at_once() -> None:
    table = excess_table(4)
    table = raised(table, 0.03 + noise(table))
    found = by_key(excesses(table))
    tested = {key: one.p for key, one in found.items() if one.p is not None}
    assert set(tested) == {(basis, measure) for basis in ("A", "update", "output") for measure in TESTED}
    seeds = table.groupby(["basis", "measure", "seed_left"]).excess.mean()
    expected = [float(ttest_1samp(seeds[key], 0, alternative="greater").pvalue) for key in tested]
    assert list(tested.values()) == pytest.approx(holm(expected).tolist())


def test_the_basis_input_is_tested_where_a_is_not_measured() -> None:
    table = excess_table(3, bases=("input",))
    assert {one.measure for one in excesses(table) if one.p is not None} == set(TESTED)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_test(seeds: int) -> None:
    table = excess_table(seeds)
    found = excesses(raised(table, 0.3 + noise(table)))
    assert {one.p for one in found} == {None} and not any(one.shown for one in found)
    assert {one.seeds for one in found} == {seeds}
    assert {one.se for one in found} == {None}  # a seed is in every pair


@pytest.mark.parametrize("side", SEEDS)
def test_two_seeds_of_one_rank_have_no_test_whatever_the_other_rank_has(side: str) -> None:
    table = excess_table(3)
    found = excesses(raised(table, 0.3 + noise(table))[table[side] < 2])
    assert {(one.seeds, one.p) for one in found} == {(2, None)}
    assert all(one.se is not None for one in found)


def test_a_seed_without_shadows_does_not_count() -> None:
    table = excess_table(3)
    table.loc[is_of(table, 2), ["control", "left_shadow", "right_shadow", "excess"]] = np.nan
    assert {(one.seeds, one.p) for one in excesses(table)} == {(2, None)}
    table[["control", "left_shadow", "right_shadow", "excess", "other_seed"]] = np.nan
    for one in excesses(table):
        assert (one.seeds, one.pair) == (3, pytest.approx(0.2))
        assert {name for name, value in asdict(one).items() if value is None} == {
            *("control", "left_shadow", "right_shadow", "other_seed", "excess", "se", "p")
        }


def test_a_basis_without_directions_is_left_out() -> None:
    table = excess_table(3)
    table.loc[table.basis != "A", ["pair", "control", "left_shadow", "right_shadow", "excess", "other_seed"]] = np.nan
    assert {one.basis for one in excesses(table)} == {"A"}


def test_an_excess_is_shown_only_above_zero() -> None:
    table = excess_table(3)
    for shift, shown in ((0.3, True), (-0.3, False)):
        tested = [one for one in excesses(raised(table, shift + noise(table))) if one.p is not None]
        assert len(tested) == 6 and {one.shown for one in tested} == {shown}


def sloped(slopes: list[float]) -> pd.DataFrame:
    """Seeds of left whose excess changes by these numbers from the first layer to the last."""
    table = excess_table(len(slopes), LAYERS)
    depth = (table.layer - 1) / (LAYERS - 1)
    return raised(table, np.array(slopes)[table.seed_left] * depth.to_numpy())


def test_the_slope_is_that_of_a_straight_line_through_the_means_of_layers() -> None:
    table = sloped([0.1, 0.2, 0.15])
    table = raised(table, np.random.default_rng(0).normal(0, 0.05, len(table)))
    found = depth_of(table, "update")
    rows = table[(table.basis == "update") & (table.measure == "corner")]
    means = rows.groupby([*SEEDS, "layer"]).excess.mean().unstack()
    slopes = over(means.apply(lambda layers: linregress(np.linspace(0, 1, LAYERS), layers).slope, axis=1))
    assert found.over_seeds is not None and (found.layers, found.beyond) == (LAYERS, "the control pair")
    assert found.over_seeds == pytest.approx(slopes)


def test_without_shadows_the_slope_is_beyond_chance() -> None:
    found = depth_of(sloped([0.1, 0.1, 0.1]).assign(control=np.nan, excess=np.nan), "A")
    assert found.beyond == "chance" and found.over_seeds is not None
    assert (found.over_seeds.mean, found.over_seeds.seeds) == (pytest.approx(0.1), 3)


def test_layers_without_a_number_have_no_part_in_the_slope() -> None:
    table = sloped([0.1, 0.1, 0.1])
    table.loc[table.layer == 1, ["pair", "control", "excess"]] = np.nan
    found = depth_of(table, "A")
    assert found.layers == LAYERS - 1 and found.over_seeds is not None
    assert found.over_seeds.mean == pytest.approx(0.1 * (LAYERS - 2) / (LAYERS - 1))
    table.loc[is_of(table, 2), ["pair", "control", "excess"]] = np.nan
    assert (seeds := depth_of(table, "A").over_seeds) is not None and seeds.seeds == 2


@pytest.mark.parametrize("layers", [1, 2])
def test_two_layers_have_no_slope(layers: int) -> None:
    assert depth_of(excess_table(3, layers), "A").over_seeds is None


def test_no_number_has_no_slope_and_no_contrast() -> None:
    table = excess_table(3).assign(pair=np.nan, control=np.nan, excess=np.nan)
    assert depth_of(table, "A").over_seeds is None
    assert contrast_of(table, "A", "q", "v") is None


def test_the_contrast_is_the_mean_difference_over_seeds() -> None:
    table = excess_table(3)
    table = raised(table, np.where(table.projection == "q", -0.05 + 0.01 * table.seed_left, 0.0))
    table.loc[table.projection == "v", ["pair", "control"]] += 0.1
    found = contrast_of(table, "output", "q", "v")
    assert found is not None and (found.first, found.second, found.beyond) == ("q", "v", "the control pair")
    assert (found.pair, found.control, found.over_seeds.mean) == pytest.approx((-0.14, -0.1, -0.04))
    half = t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert found.over_seeds.half_width() == pytest.approx(half)


def test_a_projection_without_a_number_has_no_contrast() -> None:
    table = excess_table(3)
    table.loc[table.projection == "v", ["pair", "control", "excess"]] = np.nan
    assert contrast_of(table, "A", "q", "v") is None
