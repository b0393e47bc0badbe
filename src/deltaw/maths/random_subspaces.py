"""What random subspaces share: φ and the principal angles between uniformly random subspaces of R^width.

Random subspaces are the weakest level to clear: two arms that read the same inputs share more, whatever they learned.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.polynomial.legendre import leggauss, legvander
from numpy.typing import NDArray
from scipy.special import betainccinv, betaln, fdtrc
from torch import Tensor

LEVEL = 0.05  # probability that k_star counts a direction shared by random subspaces
LEAST_WIDTH = 16  # below it, `random_p` of several directions is too small
MOST_DIRECTIONS = 512  # beyond it, the law of the largest cos²θ leaves the range of float64


class Chance(NamedTuple):
    """φ between random subspaces; entry [i - 1, j - 1] of both describes φ(i, j)."""

    mean: Float64[Tensor, "low high"]
    sd: Float64[Tensor, "low high"]


def chance(low: int, high: int, width: int) -> Chance:
    """Mean and standard deviation of φ(i, j) between random subspaces of R^width, i up to `low`, j up to `high`.

    Both are exact; 1 ≤ low, high ≤ width. `width` is the layer's d_in, or its d_out on the basis output.

    Raises:
        ValueError: a subspace would be larger than the space.
    """
    if max(low, high) > width:
        raise ValueError(f"subspaces of {low} and {high} directions do not fit into width {width}: give smaller ones")
    i, j = torch.arange(1, low + 1)[:, None], torch.arange(1, high + 1)
    return Chance(random_mean(i, j, width), random_sd(i, j, width))


def random_mean(i: Int64[Tensor, "*#cells"], j: Int64[Tensor, "*#cells"], width: int) -> Float64[Tensor, "*cells"]:
    """E φ(i, j) = max(i, j) / width between random subspaces of R^width; 1 ≤ i, j ≤ width."""
    return torch.maximum(i, j).double() / width


def random_sd(i: Int64[Tensor, "*#cells"], j: Int64[Tensor, "*#cells"], width: int) -> Float64[Tensor, "*cells"]:
    """Standard deviation of φ(i, j) between random subspaces of R^width; 1 ≤ i, j ≤ width, width ≥ 2.

    ‖U_iᵀ V_j‖²_F has the variance 2 i j (d − i)(d − j) / (d² (d − 1)(d + 2)); 0 where i or j is d = width.
    """
    i, j, d = i.double(), j.double(), width
    variance = 2 * i * j * (d - i) * (d - j) / (d**2 * (d - 1) * (d + 2))
    return variance.sqrt() / torch.minimum(i, j)


def random_p(
    phi: Float64[np.ndarray, "*#cells"] | float,
    i: Int64[np.ndarray, "*#cells"] | int,
    j: Int64[np.ndarray, "*#cells"] | int,
    width: Int64[np.ndarray, "*#cells"] | int,
) -> Float64[np.ndarray, "*cells"]:
    """Probability that random subspaces reach `phi`: the tail of the Beta law with their mean and variance.

    Exact for i = 1 or j = 1, where φ is Beta(max(i, j) / 2, (width − max(i, j)) / 2), and an approximation
    elsewhere. In simulations, p of random subspaces is below 1e-4 at most 1.7 times too often in width 16 and 1.3 times
    from width 32 on, and below 0.01 at most 1.1 times. Below 1e-4 it would be 2.2 times in width 12, 19 times in 4.

    Where i + j > width, any two subspaces share i + j − width directions, and the tail describes the remaining ones:
    ‖UᵀV‖² = i + j − width + ‖U⊥ᵀV⊥‖².

    Returns:
        Within [0, 1]; 1 where no direction remains. NaN where `phi` is NaN, and for several directions in a width below
        `LEAST_WIDTH`.
    """
    phi, i, j, d = (np.asarray(values, dtype=float) for values in (phi, i, j, width))
    forced = np.maximum(i + j - d, 0)
    left = phi * np.minimum(i, j) - forced
    i, j = np.where(forced, d - i, i), np.where(forced, d - j, j)
    small, large = np.minimum(i, j), np.maximum(i, j)
    with np.errstate(divide="ignore", invalid="ignore"):  # φ is 1, or no direction remains
        variance = 2 * i * j * (d - i) * (d - j) / (d**2 * (d - 1) * (d + 2)) / small**2
        mean = large / d
        a = mean * (mean * (1 - mean) / variance - 1)
        b = a * (1 - mean) / mean
        share = np.clip(left / small, 0, 1)
        p = fdtrc(2 * a, 2 * b, share / (1 - share) * b / a)  # the F law: several times faster than SciPy's Beta
    p = np.where((small > 1) & (d < LEAST_WIDTH), np.nan, p)
    return np.where((small == 0) & ~np.isnan(phi), 1.0, p)


def k_star(
    cos2: Sequence[float] | Float64[np.ndarray, " angles"] | Float64[Tensor, " angles"],
    low: int,
    high: int,
    width: int,
    level: float = LEVEL,
) -> float:
    """How many directions two subspaces share beyond random subspaces, counted from the smallest principal angle.

    The k-th angle counts if its cos²θ exceeds `largest_by_chance` of random subspaces of dimensions low − k + 1 and
    high − k + 1 in R^(width − k + 1): two random subspaces share a direction with probability `level`, exactly. The
    first angle that does not count ends the count.

    Args:
        cos2: cos²θ of the principal angles, falling.
        low, high: dimensions of the two subspaces.
        width: dimension of the space.
        level: probability of a false direction; divide it by the number of sites tested.

    Returns:
        0 to min(low, high). NaN where low + high ≥ width: two such subspaces fill the space, so their angles show
        nothing. NaN where both are above `MOST_DIRECTIONS`.
    """
    small, large = sorted([low, high])
    if small + large >= width or small > MOST_DIRECTIONS:
        return np.nan
    threshold = np.inf
    for k, value in enumerate(np.asarray(cos2)):
        if value <= threshold:  # a section by a hyperplane shares less: thresholds fall, and an old one may do
            threshold = largest_by_chance(small - k, large - k, width - k, level)
        if value <= threshold:
            return float(k)
    return float(len(cos2))


@lru_cache(maxsize=1024)
def largest_by_chance(small: int, large: int, width: int, level: float) -> float:
    """The number within (0, 1) that the largest cos²θ of random subspaces exceeds with probability `level`.

    For 1 ≤ small ≤ large < width − small and small ≤ `MOST_DIRECTIONS`; exact, from a level of 1e-6 on to four digits
    of the level.
    """
    if small == 1:
        return float(betainccinv(large / 2, (width - large) / 2, level))
    # All angles lie between the edges of Wachter's law, but for a margin: beyond 6 / √width the density is below 1e-15.
    middle, reach = np.arcsin(np.sqrt(large / width)), np.arcsin(np.sqrt(small / width)) + 6 / np.sqrt(width)
    start, end = max(middle - reach, 0.0), min(middle + reach, np.pi / 2)
    log_pfaffian = partial(_log_pfaffian, small, large - small, width - large - small, start)
    whole, below, above = log_pfaffian(end), start, end
    while above - below > 1e-9:
        u = (below + above) / 2
        below, above = (u, above) if -np.expm1(log_pfaffian(u) - whole) > level else (below, u)
    return float(np.sin(above) ** 2)


def _log_pfaffian(small: int, a: int, b: int, start: float, end: float) -> float:
    """log of the probability that every u lies within (start, end), plus a constant; cos²θ = sin²u.

    The density of all u is ∏ w(u) · ∏ |sin²u − sin²u'| with w = sin^a u · cos^b u (Absil, Edelman and Koev, Linear
    Algebra and its Applications 414, 2006). Its integral is the Pfaffian of ∫∫ sgn(u' − u) f(u) f'(u') du du' for any
    basis f of w times the polynomials in sin²u (de Bruijn 1955; Chiani, J. Multivariate Analysis 143, 2016). In the
    basis of Jacobi's polynomials, orthonormal for w², the matrix is well conditioned.
    """
    k, s = np.arange(1, small), a + b - 1
    diagonal = (1 + (a - b) * np.append(1, s / (2 * k + s)) / (2 * np.arange(small) + s + 2)) / 2
    beside = k * (k + a - 0.5) * (k + b - 0.5) * (k + s) / ((2 * k + s) ** 2 * (2 * k + s + 1) * (2 * k + s - 1))
    beside = np.append(0, np.sqrt(beside))

    x, weights, integral = _quadrature(-(-int(2 * small + 12 * np.sqrt(small) + 40) // 32) * 32)  # f f' oscillates so
    half = (end - start) / 2
    u = start + half * (1 + x)
    root = np.exp((a * np.log(np.sin(u)) + b * np.log(np.cos(u)) - betaln(a + 0.5, b + 0.5) / 2) / 2)
    f = np.zeros((small + 1, len(u)))  # the last row stands for the one before the first
    f[0] = root  # √w before the recurrence and √w behind it: w itself may underflow
    for n in range(small - 1):
        f[n + 1] = ((np.sin(u) ** 2 - diagonal[n]) * f[n] - beside[n] * f[n - 1]) / beside[n + 1]
    f = f[:small] * root

    products = (f * weights) @ (integral @ f.T)
    matrix = products - products.T
    if small % 2:
        border = (f @ weights)[:, None]
        matrix = np.block([[matrix, border], [-border.T, np.zeros((1, 1))]])
    return float(np.linalg.slogdet(matrix).logabsdet / 2 + small * np.log(half))


@lru_cache(maxsize=16)
def _quadrature(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Gauss's nodes in [−1, 1], their weights, and the matrix of the integrals from −1 to each node."""
    x, weights = leggauss(count)
    P = legvander(x, count)
    differences = P[:, 1:] - np.column_stack([-P[:, 0], P[:, :-2]])  # (2 n + 1) ∫ P_n from −1
    return x, weights, differences @ (P[:, :-1].T * weights) / 2
