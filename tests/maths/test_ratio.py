import math

import numpy as np
import pytest

from deltaw.maths.ratio import ratio, ratios


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


def test_examples_doubled_as_clusters_of_two_change_nothing() -> None:
    losses, labels = examples(seed=5, count=60)
    clusters = np.tile(np.arange(60), 2)
    assert ratio(np.tile(losses, 2), np.tile(labels, 2), clusters) == pytest.approx(ratio(losses, labels))


def test_the_order_of_examples_and_the_names_of_clusters_do_not_matter() -> None:
    losses, labels = examples(seed=6, count=60)
    clusters, order = np.arange(60) // 4, np.random.default_rng(7).permutation(60)
    again = ratio(losses[order], labels[order], 1000 - 7 * clusters[order])
    assert again == pytest.approx(ratio(losses, labels, clusters))


def test_clusters_of_like_examples_have_the_spread_of_new_clusters() -> None:
    draw = np.random.default_rng(8)
    shifts = np.repeat(draw.standard_normal((1000, 50)), 4, axis=1)
    totals = shifts + draw.standard_normal((1000, 200))
    clusters = np.repeat(np.arange(50), 4)
    found = np.array([ratio(row, np.ones(200), clusters) for row in totals])
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(), rel=0.08)


def test_the_covariance_gives_the_error_of_any_sum_of_columns() -> None:
    losses, labels = examples(seed=9, count=80)
    other, clusters = 0.5 * losses + labels, np.arange(80) // 2
    found = ratios(np.stack([losses, other], axis=1), labels, clusters)
    weights = np.array([1, -0.3])
    mean, error = ratio(losses - 0.3 * other, labels, clusters)
    assert (mean, error) == pytest.approx((weights @ found.means, math.sqrt(weights @ found.covariance @ weights)))
    assert found.clusters == 40
