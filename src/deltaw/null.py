"""What φ is by chance: between uniformly random subspaces of dimensions i and j. Mean and variance are exact.

It is the weakest level to clear: two arms that read the same inputs share more, whatever they learned.
"""

import torch
from jaxtyping import Float64, Int64
from scipy.stats import beta
from torch import Tensor


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


def random_p(phi: float, mean: float, sd: float) -> float:
    """Probability that random subspaces reach `phi`: the tail of the Beta law with their `mean` and `sd`.

    Exact for i = 1 or j = 1, where φ is Beta(max(i, j) / 2, (width − max(i, j)) / 2), and an approximation
    elsewhere. 1 where `sd` is 0, since chance alone gives `phi` there.
    """
    if sd == 0:
        return 1.0
    counts = mean * (1 - mean) / sd**2 - 1
    return float(beta.sf(phi, mean * counts, (1 - mean) * counts))
