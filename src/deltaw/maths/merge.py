"""Two updates ΔW₁ and ΔW₂ of one weight, as their sum sees them: whether they cancel, repeat or ignore each other.

All of it follows from singular values and from the cosines between singular vectors. Directions count by the share of
‖ΔW‖² that they hold, so that nothing here depends on LoRA's rank.
"""

from dataclasses import dataclass
from math import nan, sqrt

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Products:
    """Inner products of ΔW₁ and ΔW₂, with ⟨X, Y⟩ = tr(Xᵀ Y).

    Each of them adds up over sites: the sums are those of two updates of several weights at once.

    Attributes:
        between: ⟨ΔW₁, ΔW₂⟩.
        one, other: ‖ΔW₁‖² and ‖ΔW₂‖².
        inputs, outputs: ‖ΔW₂ ΔW₁ᵀ‖² and ‖ΔW₂ᵀ ΔW₁‖²: what both have in common on the side of the input, the output.
        one_twice, other_twice: ‖ΔW₁ ΔW₁ᵀ‖² and ‖ΔW₂ ΔW₂ᵀ‖², the sums of the fourth powers of the singular values.
    """

    between: float
    one: float
    other: float
    inputs: float
    outputs: float
    one_twice: float
    other_twice: float

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
    values: Float[Tensor, " k"],
    values_other: Float[Tensor, " n"],
    inputs: Float[Tensor, "k n"],
    outputs: Float[Tensor, "k n"],
) -> Products:
    """The inner products of two updates, from their singular value decompositions.

    Args:
        values: singular values of ΔW₁; none where it is 0.
        values_other: those of ΔW₂.
        inputs: cosines of the right-singular vectors of ΔW₁ with those of ΔW₂.
        outputs: cosines of the left-singular vectors, with signs that belong to those of `inputs`.
    """
    one, other = values**2, values_other**2
    return Products(
        between=float(values @ (inputs * outputs) @ values_other),
        one=float(one.sum()),
        other=float(other.sum()),
        inputs=float(one @ inputs**2 @ other),
        outputs=float(one @ outputs**2 @ other),
        one_twice=float(one @ one),
        other_twice=float(other @ other),
    )


def deviation(d: int, rank: float, rank_other: float) -> float:
    """Standard deviation of `overlap_input` (of d inputs) or `overlap_output` (of d outputs) between random directions.

    It is exact. Scale both Gram matrices to a trace of 1 and take 1/d from their diagonals: that leaves X and Y, of
    trace 0. Over random rotations Q of d ≥ 2 dimensions, the mean of tr(X Q Y Qᵀ)² is
    2 ‖X‖² ‖Y‖² / ((d − 1)(d + 2)), because symmetric matrices of trace 0 are an irreducible representation of the
    orthogonal group, of dimension (d − 1)(d + 2) / 2.

    Args:
        rank, rank_other: `Products.ranks`.
    """
    spread = max(1 / rank - 1 / d, 0.0) * max(1 / rank_other - 1 / d, 0.0)
    return sqrt(2 * spread / ((d - 1) * (d + 2))) if d > 1 else 0.0


def _ratio(above: float, below: float) -> float:
    return above / below if below else nan


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole else nan
