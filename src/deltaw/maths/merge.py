"""Two updates ΔW₁ and ΔW₂ of one weight, as their sum sees them: whether they cancel, repeat or ignore each other.

Only inner products of factors are formed, never a matrix as large as the weight. Everything here counts directions by
the share of ‖ΔW‖² that they hold, so that it does not depend on LoRA's rank.
"""

from dataclasses import astuple, dataclass
from math import nan, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-13  # of ‖ΔW‖², as a share of its terms


@dataclass(frozen=True)
class Products:
    """Inner products of ΔW₁ = B₁ A₁ and ΔW₂ = B₂ A₂, with ⟨X, Y⟩ = tr(Xᵀ Y).

    They add up over sites: the sum of two `Products` is that of two updates which have both weights.

    Attributes:
        between: ⟨ΔW₁, ΔW₂⟩.
        one, other: ‖ΔW₁‖² and ‖ΔW₂‖².
        inputs, outputs: ‖ΔW₂ ΔW₁ᵀ‖² and ‖ΔW₂ᵀ ΔW₁‖²: what both have in common on the side of the input, the output.
        one_twice, other_twice: ‖ΔW₁ ΔW₁ᵀ‖² and ‖ΔW₂ ΔW₂ᵀ‖², the sums of the fourth powers of the singular values.
    """

    between: float = 0.0
    one: float = 0.0
    other: float = 0.0
    inputs: float = 0.0
    outputs: float = 0.0
    one_twice: float = 0.0
    other_twice: float = 0.0

    def __add__(self, more: "Products") -> "Products":
        return Products(*map(sum, zip(astuple(self), astuple(more), strict=True)))

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

    @property
    def overlap_input(self) -> float:
        """Mean cos² between the input directions of both, each with its share of ‖ΔW‖², in [0, 1]; NaN where one is 0.

        With the singular values σ and the right-singular vectors v of ΔW₁, τ and w of ΔW₂, that is
        Σ σᵢ² τⱼ² ⟨vᵢ, wⱼ⟩² / (Σ σᵢ² Σ τⱼ²). Its mean for random directions is 1/d_in (`deviation`).
        """
        return _share(self.inputs, self.one * self.other)

    @property
    def overlap_output(self) -> float:
        """As `overlap_input`, of the left-singular vectors; 1/d_out for random directions."""
        return _share(self.outputs, self.one * self.other)

    @property
    def ranks(self) -> tuple[float, float]:
        """(Σ σ²)² / Σ σ⁴ of ΔW₁ and of ΔW₂: how many equal singular values would spread it as much, from 1 to its rank.

        NaN where an update is 0.
        """
        return _ratio(self.one**2, self.one_twice), _ratio(self.other**2, self.other_twice)

    @property
    def effects(self) -> tuple[float, float]:
        """Size of what ΔW₂ does to the inputs that ΔW₁ reads, what ΔW₁ does being 1; and of ΔW₁ on the inputs of ΔW₂.

        The first is ‖ΔW₂ ΔW₁ᵀ‖ / ‖ΔW₁ ΔW₁ᵀ‖: the root mean square of ‖ΔW₂ x‖ over that of ‖ΔW₁ x‖, for inputs
        x = ΔW₁ᵀ z with z white. Both are 1 for a copy, and NaN where the update that reads is 0.
        """
        return sqrt(_ratio(self.inputs, self.one_twice)), sqrt(_ratio(self.inputs, self.other_twice))


def products(
    A: Float[Tensor, "r d_in"],
    B: Float[Tensor, "d_out r"],
    A_other: Float[Tensor, "s d_in"],
    B_other: Float[Tensor, "d_out s"],
) -> Products:
    """The inner products of B A and `B_other` `A_other`, from r × r, r × s and s × s matrices.

    The result is that of float64, whatever the factors' precision; each B may hold a scale.
    """
    A, B, A_other, B_other = (factor.double() for factor in (A, B, A_other, B_other))
    B, B_other = _unless_rounding(A, B), _unless_rounding(A_other, B_other)
    AA, BB, AA_other, BB_other = A @ A.T, B.T @ B, A_other @ A_other.T, B_other.T @ B_other
    across_A, across_B = A @ A_other.T, B.T @ B_other
    return Products(
        between=_inner(across_B, across_A),
        one=_inner(BB, AA),
        other=_inner(BB_other, AA_other),
        inputs=_squared(BB @ across_A, across_A @ BB_other),
        outputs=_squared(AA @ across_B, across_B @ AA_other),
        one_twice=_squared(BB @ AA, AA @ BB),
        other_twice=_squared(BB_other @ AA_other, AA_other @ BB_other),
    )


def deviation(d: int, rank: float, rank_other: float) -> float:
    """Standard deviation of `overlap_input` (of d inputs) or `overlap_output` (of d outputs) between random directions.

    It is exact. With the traceless parts X and Y of both Gram matrices and a random rotation Q of d ≥ 2 dimensions, the
    mean of tr(X Q Y Qᵀ)² is 2 ‖X‖² ‖Y‖² / ((d − 1)(d + 2)), because traceless symmetric matrices are an irreducible
    representation of the rotations, of dimension (d − 1)(d + 2) / 2.

    Args:
        rank, rank_other: `Products.ranks`.
    """
    spread = max(1 / rank - 1 / d, 0.0) * max(1 / rank_other - 1 / d, 0.0)
    return sqrt(2 * spread / ((d - 1) * (d + 2))) if d > 1 else 0.0


def _unless_rounding(A: Float[Tensor, "r d_in"], B: Float[Tensor, "d_out r"]) -> Float[Tensor, "d_out r"]:
    """B; or 0 where rows that cancel leave nothing of B A but rounding, as at the step at which an adapter starts."""
    terms = (B.T @ B) * (A @ A.T)
    return B if terms.sum() > ROUNDING * terms.abs().sum() else torch.zeros_like(B)


def _inner(one: Float[Tensor, "r s"], other: Float[Tensor, "r s"]) -> float:
    return float((one * other).sum())


def _squared(one: Float[Tensor, "r s"], other: Float[Tensor, "r s"]) -> float:
    """`_inner` where it is a squared norm: rounding can leave −1e-20."""
    return max(_inner(one, other), 0.0)


def _ratio(above: float, below: float) -> float:
    return above / below if below else nan


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole else nan
