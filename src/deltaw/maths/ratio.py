"""A mean over many small units that come in few large ones: tokens in examples."""

from math import nan, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Num


class Ratios(NamedTuple):
    """Several means over the same units.

    Attributes:
        means: of each column of totals.
        covariance: of the means, over the choice of clusters; NaN with one cluster.
        clusters: G; Student's t has G − 1 degrees of freedom.
    """

    means: Float64[np.ndarray, " columns"]
    covariance: Float64[np.ndarray, "columns columns"]
    clusters: int


def ratio(
    totals: Float[np.ndarray, " units"],
    sizes: Num[np.ndarray, " units"],
    clusters: Int[np.ndarray, " units"] | None = None,
) -> tuple[float, float]:
    """The mean m = Σ totals / Σ sizes, and its standard error over the choice of clusters: see `ratios`."""
    found = ratios(totals[:, None], sizes, clusters)
    return float(found.means[0]), sqrt(found.covariance[0, 0])


def ratios(
    totals: Float[np.ndarray, "units columns"],
    sizes: Num[np.ndarray, " units"],
    clusters: Int[np.ndarray, " units"] | None = None,
) -> Ratios:
    """The mean m_a = Σ totals_a / Σ sizes of each column, and the covariance of the means over the choice of clusters.

    A ratio of two random sums has no exact standard error. This one replaces m by its linear part (the delta method;
    Cochran, Sampling Techniques, 3rd ed., ch. 6), with the residuals e_a = total_a − m_a · size summed within each of
    the G clusters g (ch. 9A; Cameron and Miller 2015, J. Human Resources 50, eq. 11):

        cov_ab = G / (G − 1) · Σ_g (Σ_{i in g} e_ai) (Σ_{i in g} e_bi) / (Σ sizes)².

    It needs dozens of clusters and none that outweighs the others. For the difference of two means over the same
    units, give the differences of the totals: what the units have in common cancels.

    Args:
        totals: the sum over each unit, as the loss of an example in nats.
        sizes: what each unit counts for, as its labels: 0 or more, not all 0.
        clusters: the number of each unit's cluster; clusters are drawn independently. None: each unit is one.

    Returns:
        Means in units of `totals` per unit of `sizes`, and their covariance.
    """
    size = float(sizes.sum())
    means = totals.sum(axis=0) / size
    residuals = totals - means * sizes[:, None]
    if clusters is not None:
        _, numbers = np.unique(clusters, return_inverse=True)
        summed = np.zeros((int(numbers.max()) + 1, totals.shape[1]))
        np.add.at(summed, numbers, residuals)
        residuals = summed
    count = len(residuals)
    scale = count / (count - 1) / size**2 if count > 1 else nan
    return Ratios(means, scale * residuals.T @ residuals, count)
