"""Means over pairs of seeds and levels for several tests, against SciPy, plain loops and simulations."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from deltaw.maths.seeds import OverSeeds, holm, over_seeds
from tests.support.seeds import single_seeds

numbers = st.floats(-100, 100).map(lambda number: round(number, 3))
probabilities = st.floats(0, 1)


@given(st.lists(numbers, min_size=2, max_size=8))
def test_pairs_of_one_seed_have_the_usual_error(values: list[float]) -> None:
    found = single_seeds(values)
    assert (found.mean, found.se) == pytest.approx((np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5))
    assert found.seeds == len(values)


@given(st.integers(3, 6).flatmap(lambda n: st.lists(numbers, min_size=n * (n - 1), max_size=n * (n - 1))))
def test_the_error_leaves_out_one_seed_with_all_its_pairs(values: list[float]) -> None:
    n = int(len(values) ** 0.5) + 1
    pairs = list(permutations(range(n), 2))
    without = np.zeros(n)
    for seed in range(n):
        without[seed] = np.mean([value for pair, value in zip(pairs, values, strict=True) if seed not in pair])
    found = over_seeds(pairs, values)
    assert (found.mean, found.seeds) == (pytest.approx(np.mean(values), abs=1e-9), n)
    assert found.se == pytest.approx(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()), abs=1e-9)


@given(st.lists(numbers, min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-2))
def test_p_and_interval_are_those_of_students_t(values: list[float]) -> None:
    found, expected = single_seeds(values), ttest_1samp(values, 0, alternative="greater")
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean - found.half_width(0.05), found.mean + found.half_width(0.05)) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("pairs", "values", "seeds"),
    [
        ([(0, 0)], [0.5], 1),
        ([(0, 1)], [0.5], 1),
        ([(0, 0), (1, 1)], [0.5, np.nan], 1),
        ([(0, 1), (0, 2), (0, 3)], [0.4, 0.6, 0.5], 1),  # left has one seed
        ([(0, 1), (1, 0)], [0.4, 0.6], 2),
        ([*permutations(range(3), 2)], [0.4, np.nan, 0.6, np.nan, np.nan, np.nan], 2),  # seed 2 has no number
    ],
)
def test_without_a_seed_to_leave_out_there_is_no_error_and_no_test(
    pairs: list[tuple[int, int]], values: list[float], seeds: int
) -> None:
    found = over_seeds(pairs, values)
    assert (found.mean, found.seeds) == (0.5, seeds)
    assert np.isnan([found.se, found.p, found.half_width(), found.detectable()]).all()


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_no_seed_has_no_mean(values: list[float]) -> None:
    found = single_seeds(values)
    assert found.seeds == 0 and np.isnan([found.mean, found.se, found.p, found.half_width()]).all()


def test_values_that_are_nan_do_not_count() -> None:
    assert single_seeds([1.0, np.nan, 2.0, 4.0]) == single_seeds([1.0, 2.0, 4.0])


@pytest.mark.parametrize(("value", "p"), [(0.5, 0), (0.0, 1), (-0.5, 1)])
def test_equal_values_leave_no_doubt(value: float, p: float) -> None:
    found = single_seeds([value] * 3)
    assert (found.mean, found.se, found.p, found.half_width(), found.detectable()) == (value, 0, p, 0, 0)


@given(st.lists(probabilities, max_size=8))
def test_holm_agrees_with_its_definition(p: list[float]) -> None:
    n, ranked = len(p), sorted(p)
    expected = [
        max(min(1.0, (n - k) * ranked[k]) for k in range(n) if ranked[k] <= one)  # Holm (1979), step by step
        for one in p
    ]
    assert holm(p).tolist() == pytest.approx(expected)


@given(st.lists(probabilities, min_size=1, max_size=8))
def test_holm_only_raises_p_values_and_keeps_their_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted <= np.minimum(len(p) * np.array(p), 1) + 1e-12).all()  # Bonferroni


@pytest.mark.parametrize("effects", [0, 2])
@pytest.mark.parametrize("dependence", [0.0, 0.8])
def test_noise_is_called_an_effect_in_at_most_5_percent_of_analyses(effects: int, dependence: float) -> None:
    """Analyses of three seeds and six tests, as of the summary; the first tests have an effect. The truth is 4.9 %."""
    draw, analyses = np.random.default_rng(0), 4000
    common, own = draw.normal(size=(analyses, 3, 1)), draw.normal(size=(analyses, 3, 6))
    values = dependence * common + np.sqrt(1 - dependence**2) * own + 50 * (np.arange(6) < effects)
    false = [holm([single_seeds(test).p for test in seeds.T])[effects:].min() < 0.05 for seeds in values]
    assert np.mean(false) <= 0.05 + 1.645 * np.sqrt(0.05 * 0.95 / analyses)


def share_called_an_effect(left: range, right: range, right_varies: bool = True, correlation: float = 0.0) -> float:
    """Of 2000 cases in which each pair of two seeds has the sum of a number of left's seed and one of right's, both
    with a true mean of 0; `correlation` is between the two numbers of one seed.
    """
    pairs = np.array([pair for pair in product(left, right) if pair[0] != pair[1]])
    of_left, other = np.random.default_rng(0).normal(size=(2, 2000, pairs.max() + 1))
    of_right = right_varies * (correlation * of_left + np.sqrt(1 - correlation**2) * other)
    values = of_left[:, pairs[:, 0]] + of_right[:, pairs[:, 1]]
    return float(np.mean([over_seeds(pairs, of_case).p < 0.05 for of_case in values]))


AT_MOST_5_PERCENT = 0.05 + 1.645 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [3, 4])
def test_pairs_that_share_seeds_are_called_an_effect_in_at_most_5_percent_of_cases(
    seeds: int, correlation: float
) -> None:
    assert share_called_an_effect(range(seeds), range(seeds), correlation=correlation) <= AT_MOST_5_PERCENT


@pytest.mark.parametrize(("left", "right"), [(range(2), range(3)), (range(4), range(3)), (range(3), range(3, 7))])
@pytest.mark.parametrize("right_varies", [False, True])
def test_a_side_with_more_seeds_does_not_add_effects(left: range, right: range, right_varies: bool) -> None:
    """If right does not vary, the value rests on left's seeds, and right's are no further evidence."""
    assert share_called_an_effect(left, right, right_varies) <= AT_MOST_5_PERCENT


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_a_detectable_mean_is_found_in_about_80_percent_of_cases(seeds: int) -> None:
    """`detectable` is taken at the true standard error of normal seeds; their own varies, hence "about"."""
    draw = np.random.default_rng(seeds)
    at_truth = OverSeeds(0.0, 1 / np.sqrt(seeds), seeds, 0.5)
    samples = draw.normal(at_truth.detectable(), 1, size=(4000, seeds))
    found = np.mean([abs(one.mean) > one.half_width() for one in map(single_seeds, samples)])
    assert 0.75 < found < 0.9
