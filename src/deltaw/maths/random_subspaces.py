"""What random subspaces share: φ and the principal angles between uniformly random subspaces of R^width.

Random subspaces are the weakest level to clear: two arms that read the same inputs share more, whatever they learned
(`deltaw.maths.input_draws`).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import airy, betainccinv, expit, fdtrc
from torch import Tensor

LEVEL = 0.05  # probability that k_star counts a direction shared by random subspaces


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
    elsewhere. Where i + j > width, any two subspaces share i + j − width directions, and the tail describes the
    remaining ones: ‖UᵀV‖² = i + j − width + ‖U⊥ᵀV⊥‖². 1 where no direction remains; NaN where `phi` is NaN.
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
    return np.where((small == 0) & ~np.isnan(phi), 1.0, p)


def k_star(
    cos2: Sequence[float] | Float64[np.ndarray, " angles"] | Float64[Tensor, " angles"],
    low: int,
    high: int,
    width: int,
    level: float = LEVEL,
) -> float:
    """How many directions two subspaces share beyond random subspaces, counted from the smallest principal angle.

    The k-th angle counts if its cos²θ exceeds a threshold; the first angle that does not ends the count. Random
    subspaces of dimensions low − k + 1 and high − k + 1 in R^(width − k + 1) have a largest cos²θ above the threshold
    with probability `level`. The threshold follows Johnstone's Tracy–Widom approximation (Annals of Statistics 36,
    2008); for a single direction it follows the Beta law exactly. The approximation is close at 5 %. Far out in the
    tail, and for ranks 2 to 4, it is conservative.

    Args:
        cos2: cos²θ of the principal angles, falling.
        low, high: dimensions of the two subspaces.
        width: dimension of the space.
        level: probability of a false direction; divide it by the number of sites tested.

    Returns:
        0 to min(low, high). NaN where low + high ≥ width: two such subspaces fill the space, so their angles show
        nothing.
    """
    if low + high >= width:
        return np.nan
    return float(np.cumprod(np.asarray(cos2) > largest_by_chance(low, high, width, level)).sum())


@lru_cache(maxsize=1024)
def largest_by_chance(low: int, high: int, width: int, level: float) -> NDArray[np.float64]:
    """The thresholds of `k_star` on cos²θ of the first, second, … angle: min(low, high) numbers within (0, 1)."""
    small, large = sorted([low, high])
    return np.array([_quantile(small - k, large - k, width - k, level) for k in range(small)])


def _quantile(small: int, large: int, width: int, level: float) -> float:
    """The value that the largest cos²θ of random subspaces exceeds with probability `level`; small + large < width."""
    if small == 1:
        return float(betainccinv(large / 2, (width - large) / 2, level))
    mean, spread = _logit_law(small, large, width)
    return float(expit(mean + spread * _tracy_widom_quantile(level)))


def _logit_law(small: int, large: int, width: int) -> tuple[float, float]:
    """μ and σ such that logit of the largest cos²θ is about μ + σ · TW₁ (Johnstone 2008, Theorem 1)."""
    n = width - 1
    gamma, omega = (2 * np.arcsin(np.sqrt((size - 0.5) / n)) for size in (small, large))
    mean = 2 * np.log(np.tan((omega + gamma) / 2))
    cube = 16 / (n**2 * np.sin(omega + gamma) ** 2 * np.sin(omega) * np.sin(gamma))
    return mean, cube ** (1 / 3)


@lru_cache(maxsize=64)
def _tracy_widom_quantile(level: float) -> float:
    low, high = -5.0, 60.0
    while high - low > 1e-12:  # bisection: importing SciPy's solvers takes longer
        middle = (low + high) / 2
        low, high = (middle, high) if tracy_widom_tail(middle) > level else (low, middle)
    return high


def tracy_widom_tail(s: float) -> float:
    """P(TW₁ > s) = 1 − det(1 − K), K the operator with kernel Ai((x + y) / 2) / 2 on (s, ∞), by Gauss–Legendre.

    The formula is Ferrari and Spohn's (J. Phys. A 38, 2005), the quadrature Bornemann's (Math. Comp. 79, 2010). The
    error is below 1e-12 for s ≥ −1, and below 1e-6 for s ≥ −5.
    """
    x, weights = _nodes()
    x, weights = s + 8 * (x + 1), 8 * weights  # the kernel vanishes beyond s + 16
    root = np.sqrt(weights)
    kernel = root[:, None] * airy((x[:, None] + x) / 2)[0] / 2 * root
    return float(1 - np.linalg.det(np.eye(len(x)) - kernel))


@lru_cache(maxsize=1)
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes in [−1, 1] and weights of the quadrature."""
    x, weights = leggauss(32)
    return x, weights
