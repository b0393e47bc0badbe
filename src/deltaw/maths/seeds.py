"""Means over pairs of seeds, with Student's t, and levels for several tests at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit


class OverSeeds(NamedTuple):
    """A mean over pairs of n independent seeds.

    Attributes:
        mean: of the values.
        se: standard error of the mean, by the jackknife over seeds; NaN where a seed is in every pair.
        seeds: n, the number of seeds on the side, left or right, that has fewer: the values may vary with these alone.
        p: probability of a t at least as high if the true mean is 0, by Student's t with n − 1 degrees of freedom; NaN
            where `se` is.
    """

    mean: float
    se: float
    seeds: int
    p: float

    def half_width(self, level: float = 0.05) -> float:
        """Half of the two-sided confidence interval of 1 − `level`; NaN where `se` is."""
        return float(-stdtrit(self.seeds - 1, level / 2) * self.se)

    def detectable(self, level: float = 0.05, power: float = 0.8) -> float:
        """About the smallest true mean that a two-sided test at `level` finds with this power, if `se` is right.

        NaN where `se` is.
        """
        return self.half_width(level) + float(stdtrit(self.seeds - 1, power) * self.se)


def over_seeds(
    pairs: Sequence[tuple[int, int]] | Int64[np.ndarray, "pairs 2"],
    values: Sequence[float] | Float64[np.ndarray, " pairs"],
) -> OverSeeds:
    """The mean of one value per pair of seeds, with a standard error that knows that pairs share seeds.

    The jackknife leaves out one seed at a time, with all pairs that it is in. If every pair is of one seed, its error
    is the usual one, sd / √n.

    Args:
        pairs: the seeds of the left and the right arm of each pair.
        values: NaN does not count.
    """
    found = np.asarray(values, dtype=float)
    of_seeds, found = np.asarray(pairs, dtype=int).reshape(-1, 2)[~np.isnan(found)], found[~np.isnan(found)]
    seeds = np.unique(of_seeds)
    without = [found[(of_seeds != seed).all(axis=1)] for seed in seeds]
    n = min(len(np.unique(side)) for side in of_seeds.T)
    if not len(found) or not all(map(len, without)):
        return OverSeeds(float(found.mean()) if len(found) else np.nan, np.nan, n, np.nan)
    mean, means = float(found.mean()), np.array([rest.mean() for rest in without])
    se = float(np.sqrt((len(seeds) - 1) * means.var()))
    return OverSeeds(mean, se, n, float(stdtr(n - 1, -mean / se)) if se else float(mean <= 0))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """p-values that hold for all tests at once (Holm 1979): one below 5 % is false in at most 5 % of cases."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted
