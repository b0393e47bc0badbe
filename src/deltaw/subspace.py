"""The subspaces that LoRA factors span, and the paper's similarity φ of two (arXiv 2106.09685, §7.2)."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

NEGLIGIBLE = 1e-6  # of the largest singular value: below it a direction is rounding, not training


def numerical_rank(singular_values: Float64[Tensor, " k"]) -> int:
    """How many of the singular values, largest first, are above rounding: 0 to k; 0 for a zero matrix."""
    return int((singular_values > NEGLIGIBLE * singular_values[0]).sum())


def row_basis(A: Float[Tensor, "rank width"]) -> Float64[Tensor, "rank width"]:
    """Right-singular vectors of `A`, one a row, in the order of their singular values.

    In double precision, since the singular values of a trained A lie close together. Rows beyond the
    numerical rank are NaN: any vector of the null space would do there, and none means anything.
    """
    _, singular_values, Vh = torch.linalg.svd(A.double(), full_matrices=False)
    rank = numerical_rank(singular_values)
    basis = torch.full(A.shape, torch.nan, dtype=torch.float64)
    basis[:rank] = Vh[:rank]
    return basis


def similarity(A_low: Float[Tensor, "low width"], A_high: Float[Tensor, "high width"]) -> Float64[Tensor, "low high"]:
    """Similarity φ of the leading subspaces of two LoRA factors, for every pair of sizes (Eq. 4).

    With U_i the first i right-singular vectors of `A_low` and V_j the first j of `A_high`, as columns,

        φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j).

    It is 1 where one span contains the other, 0 where they are orthogonal, and on average max(i, j) / width
    between two random spans: the level that a claim has to clear (`deltaw.chance`).

    Returns:
        φ, dimensionless, within [0, 1]; entry `[i - 1, j - 1]` holds φ(i, j). NaN where i or j is beyond the
        numerical rank of its factor.
    """
    cosines = row_basis(A_low) @ row_basis(A_high).T
    overlap = cosines.square().cumsum(0).cumsum(1)  # ‖U_iᵀ V_j‖²_F, all i and j at once; a NaN stays in its tail
    i = torch.arange(1, len(A_low) + 1)[:, None]
    j = torch.arange(1, len(A_high) + 1)
    return (overlap / torch.minimum(i, j)).clamp(max=1)  # rounding can end at 1 + 1e-15
