import math

import numpy as np
import pytest

from deltaw.maths.ratio import ratio


def examples(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses that grow with the labels and vary as a lognormal, as the losses of texts do."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(1, 20, count)
    return labels * draw.lognormal(sigma=0.8, size=count), labels


def test_is_the_formula_of_the_docstring() -> None:
    losses, labels = examples(seed=0, count=30)
    mean = sum(losses.tolist()) / sum(labels.tolist())
    squares = 0.0
    for loss, label in zip(losses.tolist(), labels.tolist(), strict=True):
        squares += (loss - mean * label) ** 2
    assert ratio(losses, labels) == pytest.approx((mean, math.sqrt(30 / 29 * squares) / sum(labels.tolist())))


def test_is_the_standard_error_of_a_mean_where_all_units_are_alike_in_size() -> None:
    losses, _ = examples(seed=1, count=30)
    _, error = ratio(losses, np.full(30, 4))
    assert error == pytest.approx(np.std(losses / 4, ddof=1) / math.sqrt(30))


def test_agrees_with_a_bootstrap_over_examples() -> None:
    losses, labels = examples(seed=2, count=300)
    draw = np.random.default_rng(3)
    chosen = draw.integers(0, 300, (4000, 300))
    means = losses[chosen].sum(1) / labels[chosen].sum(1)
    assert ratio(losses, labels)[1] == pytest.approx(means.std(), rel=0.05)


def test_is_the_spread_of_the_mean_over_new_examples() -> None:
    estimates = np.array([ratio(*examples(seed, count=200)) for seed in range(2000)])
    assert np.sqrt((estimates[:, 1] ** 2).mean()) == pytest.approx(estimates[:, 0].std(), rel=0.08)


def test_a_difference_over_the_same_examples_has_a_smaller_error_than_unpaired_means() -> None:
    losses, labels = examples(seed=4, count=200)
    later = 0.9 * losses
    mean, error = ratio(losses - later, labels)
    assert mean == pytest.approx(ratio(losses, labels)[0] - ratio(later, labels)[0])
    assert error == pytest.approx(0.1 * ratio(losses, labels)[1])


def test_one_unit_tells_nothing_of_the_error_and_a_diverged_loss_nothing_at_all() -> None:
    mean, error = ratio(np.array([6.0]), np.array([4]))
    assert mean == 1.5 and math.isnan(error)
    assert all(math.isnan(value) for value in ratio(np.array([6.0, np.nan]), np.array([4, 2])))
