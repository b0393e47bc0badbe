"""Limits for a cost as a share of a gain, where both are estimated."""

from math import nan, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A cost and a gain, measured together.

    Attributes:
        means: the cost a and the gain g, in any one unit.
        covariance: of the two means.
        freedom: degrees of freedom of Student's t.
    """

    means: Float64[np.ndarray, " 2"]
    covariance: Float64[np.ndarray, "2 2"]
    freedom: int

    @property
    def share(self) -> float:
        """a / g; NaN where g is 0."""
        cost, gain = map(float, self.means)
        return cost / gain if gain else nan

    def excess(self, margin: float) -> tuple[float, float]:
        """The contrast a − margin · g, which is below 0 where the cost is inside the margin, and its standard error."""
        weights = np.array([1.0, -margin])
        return float(weights @ self.means), sqrt(max(float(weights @ self.covariance @ weights), 0))

    def limits(self, level: float = 0.05) -> tuple[float, float]:
        """The lower and the upper limit of a / g, each one-sided at `level`.

        They invert the one-sided test of a − m g by Student's t (Fieller 1954, J. R. Stat. Soc. B 16, 175): the upper
        limit is the m at which a − m g + t · se(a − m g) = 0, so it lies below a margin exactly where the test finds
        the cost inside it. With the variances V_a, V_g, the covariance C and the quantile t at 1 − `level`, the limits
        are the roots of

            (g² − t² V_g) m² − 2 (a g − t² C) m + a² − t² V_a = 0.

        Returns:
            Two numbers; NaN where the gain is not above 0 by the same test, since no share is bounded then, or where
            an error is not known.
        """
        (cost, gain), t = map(float, self.means), self.quantile(1 - level)
        cost_variance, gain_variance, both = (float(self.covariance[at]) for at in ((0, 0), (1, 1), (0, 1)))
        leading = gain**2 - t**2 * gain_variance
        if not (gain > 0 and leading > 0):
            return nan, nan
        middle = cost * gain - t**2 * both
        spread = cost**2 * gain_variance - 2 * cost * gain * both + gain**2 * cost_variance
        root = t * sqrt(max(spread - t**2 * (cost_variance * gain_variance - both**2), 0))
        return (middle - root) / leading, (middle + root) / leading

    def quantile(self, probability: float) -> float:
        """Of Student's t; NaN without degrees of freedom."""
        return float(stdtrit(self.freedom, probability)) if self.freedom > 0 else nan

    def decisive_variance(self, margin: float, level: float = 0.05, power: float = 0.8) -> float:
        """The largest variance of a − margin · g with which the test passes with this power, if the means are right.

        A true contrast δ < 0 is found where its standard error is at most |δ| / (t_{1 − level} + t_power), about
        (Cohen 1988, Statistical Power Analysis, ch. 2). NaN where δ is not below 0.
        """
        mean, _ = self.excess(margin)
        return (mean / (self.quantile(1 - level) + self.quantile(power))) ** 2 if mean < 0 else nan
