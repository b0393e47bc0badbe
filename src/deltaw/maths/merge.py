"""Two updates ΔW₁ and ΔW₂ of one weight, as their sum sees them: whether they cancel, repeat or ignore each other.

Only inner products of factors are formed, never a matrix as large as the weight.
"""

from dataclasses import dataclass
from math import nan, sqrt

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Products:
    """Inner products of ΔW₁ = B₁ A₁ and ΔW₂ = B₂ A₂, by the trace ⟨ΔW₁, ΔW₂⟩ = tr(ΔW₁ᵀ ΔW₂).

    They add up over sites: the sum of two `Products` is that of two updates which have both weights.

    Attributes:
        between: ⟨ΔW₁, ΔW₂⟩.
        one: ‖ΔW₁‖².
        other: ‖ΔW₂‖².
    """

    between: float
    one: float
    other: float

    def __add__(self, more: "Products") -> "Products":
        return Products(self.between + more.between, self.one + more.one, self.other + more.other)

    @property
    def cosine(self) -> float:
        """⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖ ‖ΔW₂‖), in [−1, 1]; NaN where an update is 0.

        Random updates have 0 on average, with a standard deviation of 1/√(d_in d_out).
        """
        norms = sqrt(self.one) * sqrt(self.other)
        return min(max(self.between / norms, -1.0), 1.0) if norms else nan

    @property
    def norm_ratio(self) -> float:
        """‖ΔW₂‖ / ‖ΔW₁‖; NaN where ΔW₁ is 0."""
        return sqrt(self.other) / sqrt(self.one) if self.one else nan


def products(
    A: Float[Tensor, "r d_in"],
    B: Float[Tensor, "d_out r"],
    A_other: Float[Tensor, "s d_in"],
    B_other: Float[Tensor, "d_out s"],
) -> Products:
    """The inner products of B A and `B_other` `A_other`, from r × s matrices: tr((B₁ᵀ B₂)(A₂ A₁ᵀ)).

    The result is that of float64, whatever the factors' precision; each B may hold a scale.
    """
    A, B, A_other, B_other = (factor.double() for factor in (A, B, A_other, B_other))
    return Products(
        between=_trace(B.T @ B_other, A @ A_other.T),
        one=max(_trace(B.T @ B, A @ A.T), 0.0),  # rows that cancel can leave −1e-20
        other=max(_trace(B_other.T @ B_other, A_other @ A_other.T), 0.0),
    )


def _trace(of_B: Float[Tensor, "r s"], of_A: Float[Tensor, "r s"]) -> float:
    """tr(of_B · of_Aᵀ)."""
    return float((of_B * of_A).sum())
