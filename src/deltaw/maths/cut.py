"""The best approximation of a product B A of lower rank, without the product: QR of both factors, SVD of the rest."""

import torch
from jaxtyping import Float
from torch import Tensor


def cut(
    A: Float[Tensor, "r d_in"], B: Float[Tensor, "d_out r"], k: int
) -> tuple[Float[Tensor, "rank d_in"], Float[Tensor, "d_out rank"]]:
    """Factors of the matrix of rank k that is nearest to B A in the Frobenius norm (Eckart and Young, 1936).

    With B = Q_B R_B and Aᵀ = Q_A R_A, the r × r core R_B R_Aᵀ has the singular values of B A, and both factors of its
    SVD become those of B A by Q_B and Q_A. Computed in float64; each factor gets the square roots of the singular
    values.

    Args:
        A, B: finite.
        k: at least 1; with k ≥ r the product stays as it is, up to rounding.

    Returns:
        A_k and B_k in the dtype of A, with min(k, r, d_in, d_out) rows and columns.
    """
    Q_B, R_B = torch.linalg.qr(B.double())
    Q_A, R_A = torch.linalg.qr(A.double().T)
    U, values, Vh = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    roots = values[:k].sqrt()
    return (roots[:, None] * Vh[:k] @ Q_A.T).to(A.dtype), (Q_B @ (U[:, :k] * roots)).to(A.dtype)
