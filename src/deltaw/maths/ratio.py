"""A mean over many small units that come in few large ones: tokens in examples."""

from math import nan, sqrt

import numpy as np
from jaxtyping import Float, Num


def ratio(totals: Float[np.ndarray, " units"], sizes: Num[np.ndarray, " units"]) -> tuple[float, float]:
    """The mean m = Σ totals / Σ sizes, and its standard error over the choice of units.

    A ratio of two random sums has no exact standard error. This one replaces m by its linear part (the delta method;
    Cochran, Sampling Techniques, 3rd ed., ch. 6), which needs dozens of units and none that outweighs the others:

        se² = n / (n − 1) · Σ (total − m · size)² / (Σ sizes)².

    For the difference of two means over the same units, give the differences of the totals: what the units have in
    common cancels.

    Args:
        totals: the sum over each of the n units, as the loss of an example in nats; units are drawn independently.
        sizes: what each unit counts for, as its labels: 0 or more, not all 0.

    Returns:
        The mean and the standard error, in units of `totals` per unit of `sizes`. With one unit the error is NaN.
    """
    n, size = len(sizes), float(sizes.sum())
    mean = float(totals.sum()) / size
    residuals = totals - mean * sizes
    return mean, sqrt(n / (n - 1) * float(residuals @ residuals)) / size if n > 1 else nan
