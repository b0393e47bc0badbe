"""How many directions a matrix uses: its singular values, and the ranks that summarise them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy.special import entr
from torch import Tensor

from deltaw.maths.subspace import Matrix, Stack, as_matrix, update_directions

ENERGY = 0.9  # share of ‖·‖²_F that the energy rank holds
CLOSE = 0.05  # below this relative gap between two singular values, noise turns their directions


@dataclass(frozen=True)
class Spectrum:
    """The k singular values of a matrix X that are above rounding, and the ranks computed from them.

    Attributes:
        singular_values: σ, largest first, in the unit of X.
        stable_rank: ‖X‖²_F / σ₁², from 1 to k; NaN where k = 0.
        entropy_rank: exp of the entropy of the shares σ² / ‖X‖²_F, in nats; from 1 to k, NaN where k = 0.
        energy_rank: the fewest leading directions that hold 90 % of ‖X‖²_F, from 1 to k; 0 where k = 0.
        gaps: (σ_n − σ_{n+1}) / σ_n, in [0, 1]; 1 for the last singular value.
    """

    singular_values: Float64[Tensor, " k"]
    stable_rank: float
    entropy_rank: float
    energy_rank: int
    gaps: Float64[Tensor, " k"]

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return float(self.singular_values.norm())

    @property
    def arbitrary(self) -> list[int]:
        """Directions, counted from 1, next to a gap below 5 %: noise turns them, and leaves their common span."""
        close = (self.gaps < CLOSE).nonzero().flatten().tolist()
        return sorted({n + side for n in close for side in (1, 2)})


def spectrum(A: Matrix, B: Matrix | None = None) -> Spectrum:
    """The spectrum of a factor A, or of the product B A where `B` is given (ΔW is scale · B A).

    Args:
        A: rank × width; a tensor, or what NumPy reads as an array.
        B: the same, d_out × rank.

    Raises:
        TypeError: a factor has no numbers in it.
        ValueError: a factor is no matrix, the ranks differ, or a value is not finite.
    """
    A = as_matrix("A", A)
    directions = Stack({"A": A}).directions["A"]
    if B is not None:
        B = as_matrix("B", B)
        if B.shape[1] != len(A):
            shapes = f"A is {len(A)} × {A.shape[1]} and B is {len(B)} × {B.shape[1]}"
            raise ValueError(f"{shapes}: give A as rank × d_in and B as d_out × rank")
        directions, _ = update_directions(directions, Stack({"B": B.T}).directions["B"])
    return spectrum_of(directions.values)


def spectrum_of(singular_values: Float64[Tensor, " k"]) -> Spectrum:
    """The spectrum that has these singular values, which fall and are above 0."""
    values = singular_values.numpy()  # on a few numbers NumPy is faster than PyTorch
    squares = (values / values[:1]) ** 2  # at most 1: squares of the values themselves may leave float64
    shares = squares / squares.sum()
    after = np.append(values[1:], 0)[: len(values)]
    return Spectrum(
        singular_values=singular_values,
        stable_rank=float(1 / shares[0]) if len(shares) else np.nan,
        entropy_rank=float(np.exp(entr(shares).sum())) if len(shares) else np.nan,
        energy_rank=int((shares.cumsum() < ENERGY - 1e-12).sum()) + 1 if len(shares) else 0,
        gaps=torch.from_numpy((values - after) / values),
    )
