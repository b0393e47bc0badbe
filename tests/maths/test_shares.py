"""Limits of a share, against bisection on the test that they invert and a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import t as student

from deltaw.maths.shares import Estimate

costs, gains = st.floats(-2, 2), st.floats(0.5, 5)
errors, correlations, freedoms = st.floats(1e-3, 0.2), st.floats(-0.99, 0.99), st.integers(2, 500)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    of_cost, of_gain, both = draw(errors), draw(errors), draw(correlations)
    off = both * of_cost * of_gain
    return Estimate(
        np.array([draw(costs), draw(gains)]), np.array([[of_cost**2, off], [off, of_gain**2]]), draw(freedoms)
    )


def upper_bound_of_the_contrast(estimate: Estimate, margin: float, level: float) -> float:
    mean, se = estimate.excess(margin)
    return mean + float(student.ppf(1 - level, estimate.freedom)) * se


@given(estimates(), st.sampled_from([0.05, 0.01]))
def test_the_limits_are_the_margins_at_which_the_tests_just_pass(estimate: Estimate, level: float) -> None:
    at_least, at_most = estimate.limits(level)
    if math.isnan(at_most):
        t = student.ppf(1 - level, estimate.freedom)
        assert estimate.means[1] <= t * math.sqrt(estimate.covariance[1, 1])
        return
    found = brentq(lambda margin: upper_bound_of_the_contrast(estimate, margin, level), estimate.share - 1e-6, 1e5)
    assert at_most == pytest.approx(found, rel=1e-6, abs=1e-8)
    negated = estimate._replace(
        means=estimate.means * [-1, 1], covariance=estimate.covariance * np.array([[1, -1], [-1, 1]])
    )
    assert at_least == pytest.approx(-negated.limits(level)[1], abs=1e-9)
    assert at_least <= estimate.share <= at_most


@given(estimates(), st.floats(-3, 3))
def test_the_upper_limit_is_below_a_margin_exactly_where_the_test_passes(estimate: Estimate, margin: float) -> None:
    at_most = estimate.limits()[1]
    bound = upper_bound_of_the_contrast(estimate, margin, 0.05)
    if not math.isnan(at_most) and abs(bound) > 1e-9:
        assert (at_most < margin) == (bound < 0)


@given(estimates(), st.floats(0.01, 100))
def test_a_share_has_no_unit(estimate: Estimate, scale: float) -> None:
    scaled = estimate._replace(means=scale * estimate.means, covariance=scale**2 * estimate.covariance)
    assert scaled.limits() == pytest.approx(estimate.limits(), rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(("gain", "error"), [(0.0, 0.0), (-1.0, 0.01), (1.0, 1.0), (1.0, math.nan)])
def test_without_a_gain_above_zero_no_share_is_bounded(gain: float, error: float) -> None:
    estimate = Estimate(np.array([0.1, gain]), np.diag([0.01, error**2]), 100)
    assert all(map(math.isnan, estimate.limits()))


def test_equal_losses_cost_nothing() -> None:
    assert Estimate(np.array([0.0, 2.0]), np.diag([0.0, 0.01]), 99).limits() == (0, 0)


def test_one_cluster_gives_no_limits() -> None:
    assert all(map(math.isnan, Estimate(np.array([0.1, 2.0]), np.full((2, 2), math.nan), 0).limits()))


def test_each_limit_holds_in_95_percent_of_samples() -> None:
    draws = np.random.default_rng(0).multivariate_normal([0.1, 1.0], [[4, 0.6], [0.6, 1]], (2000, 30))
    limits = np.array([Estimate(d.mean(0), np.cov(d.T) / 30, 29).limits() for d in draws])
    assert np.mean(limits[:, 0] > 0.1) == pytest.approx(0.05, abs=0.015)
    assert np.mean(limits[:, 1] < 0.1) == pytest.approx(0.05, abs=0.015)


def test_the_decisive_variance_gives_the_power_it_names() -> None:
    estimate = Estimate(np.array([0.0, 1.0]), np.zeros((2, 2)), 200)
    error = math.sqrt(estimate.decisive_variance(0.1))
    seen = np.random.default_rng(0).normal(-0.1, error, 4000) + student.ppf(0.95, 200) * error < 0
    assert seen.mean() == pytest.approx(0.8, abs=0.02)
    assert math.isnan(estimate.decisive_variance(-0.1)) and math.isnan(estimate.decisive_variance(0.0))
