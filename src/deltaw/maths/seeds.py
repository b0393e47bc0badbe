"""Means over seeds, with Student's t, and levels for several tests at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit


class OverSeeds(NamedTuple):
    """A mean over n independent seeds.

    Attributes:
        mean: of the values.
        se: standard error of the mean; NaN for one seed.
        seeds: n.
        p: probability of a t at least as high if the true mean is 0 and the values are normal, by n − 1 degrees of
            freedom; NaN for one seed.
    """

    mean: float
    se: float
    seeds: int
    p: float

    def half_width(self, level: float = 0.05) -> float:
        """Half of the two-sided confidence interval of 1 − `level`; NaN for one seed."""
        return float(-stdtrit(self.seeds - 1, level / 2) * self.se) if self.seeds > 1 else np.nan

    def detectable(self, level: float = 0.05, power: float = 0.8) -> float:
        """The smallest true mean that a two-sided test at `level` finds with probability `power`; NaN for one seed."""
        return self.half_width(level) + float(stdtrit(self.seeds - 1, power) * self.se) if self.seeds > 1 else np.nan


def over_seeds(values: Sequence[float] | Float64[np.ndarray, " seeds"]) -> OverSeeds:
    """The mean of one value per seed. Its standard error is the jackknife's, which leaves out one seed at a time.

    Values that are NaN do not count.
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    n = len(known)
    if n < 2:
        return OverSeeds(float(known.mean()) if n else np.nan, np.nan, n, np.nan)
    mean, se = float(known.mean()), float(known.std(ddof=1) / np.sqrt(n))  # of a mean, this is the jackknife's error
    if se == 0:
        return OverSeeds(mean, se, n, float(mean <= 0))
    return OverSeeds(mean, se, n, float(stdtr(n - 1, -mean / se)))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """p-values that hold for all tests at once (Holm 1979): one below 5 % is false in at most 5 % of cases."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted
