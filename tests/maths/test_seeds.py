"""Means over seeds and levels for several tests, against SciPy, plain loops and simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from deltaw.maths.seeds import holm, over_seeds

numbers = st.floats(-100, 100).map(lambda number: round(number, 3))
probabilities = st.floats(0, 1)


@given(st.lists(numbers, min_size=2, max_size=8))
def test_the_error_leaves_out_one_seed_at_a_time(values: list[float]) -> None:
    n, found = len(values), over_seeds(values)
    without = np.array([np.mean(values[:k] + values[k + 1 :]) for k in range(n)])
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.se == pytest.approx(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()), abs=1e-9)
    assert found.seeds == n


@given(st.lists(numbers, min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-2))
def test_p_and_interval_are_those_of_students_t(values: list[float]) -> None:
    found, expected = over_seeds(values), ttest_1samp(values, 0, alternative="greater")
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean - found.half_width(0.05), found.mean + found.half_width(0.05)) == pytest.approx((low, high))


def test_one_seed_has_no_error_and_no_test() -> None:
    for values in ([0.5], [0.5, np.nan], [np.nan, np.nan, 0.5]):
        found = over_seeds(values)
        assert (found.mean, found.seeds) == (0.5, 1)
        assert np.isnan([found.se, found.p, found.half_width(), found.detectable()]).all()


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_no_seed_has_no_mean(values: list[float]) -> None:
    found = over_seeds(values)
    assert found.seeds == 0 and np.isnan([found.mean, found.se, found.p, found.half_width()]).all()


def test_values_that_are_nan_do_not_count() -> None:
    assert over_seeds([1.0, np.nan, 2.0, 4.0]) == over_seeds([1.0, 2.0, 4.0])


@pytest.mark.parametrize(("value", "p"), [(0.5, 0), (0.0, 1), (-0.5, 1)])
def test_equal_values_leave_no_doubt(value: float, p: float) -> None:
    found = over_seeds([value] * 3)
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
    false = [holm([over_seeds(test).p for test in seeds.T])[effects:].min() < 0.05 for seeds in values]
    assert np.mean(false) <= 0.05 + 1.645 * np.sqrt(0.05 * 0.95 / analyses)


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_a_detectable_mean_is_found_in_about_80_percent_of_cases(seeds: int) -> None:
    """`detectable` is taken at the true standard error of normal seeds; their own varies, hence "about"."""
    draw = np.random.default_rng(seeds)
    at_truth = over_seeds([1.0, 2.0])._replace(se=1 / np.sqrt(seeds), seeds=seeds)
    samples = draw.normal(at_truth.detectable(), 1, size=(4000, seeds))
    found = np.mean([abs(one.mean) > one.half_width() for one in map(over_seeds, samples)])
    assert 0.75 < found < 0.9
