"""How many directions a matrix really uses: its singular values, and the ranks that summarise them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import entr
from torch import Tensor

from deltaw.maths.subspace import Stack, update_directions

ENERGY = 0.9  # share of ‖·‖²_F that the energy rank holds
CLOSE = 0.05  # a smaller relative gap behind a singular value leaves its direction to rounding and noise


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix, those above rounding, and what follows from them. Ranks are NaN or 0 without any.

    Attributes:
        singular_values: largest first, in the matrix's own unit.
        stable_rank: ‖·‖²_F / σ₁², 1 to k.
        entropy_rank: exp of the entropy of the shares σ² / ‖·‖²_F, in nats; 1 to k.
        energy_rank: the fewest leading directions that hold 90 % of ‖·‖²_F, 1 to k.
        gaps: (σ_n − σ_{n+1}) / σ_n behind each, in [0, 1]; 1 behind the last.
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
        """The directions, from 1, that noise would turn: those next to a gap below 5 %. Their span stays."""
        close = (self.gaps < CLOSE).nonzero().flatten().tolist()
        return sorted({n + side for n in close for side in (1, 2)})


def spectrum(A: Float[Tensor, "rank width"], B: Float[Tensor, "d_out rank"] | None = None) -> Spectrum:
    """The spectrum of a factor A, or where `B` is given that of B A (times its scale, of ΔW).

    Raises:
        ValueError: a factor holds a value that is not finite.
    """
    (directions,) = Stack(A).directions
    if B is not None:
        directions, _ = update_directions(directions, *Stack(B.T).directions)
    return spectrum_of(directions.values)


def spectrum_of(singular_values: Float64[Tensor, " k"]) -> Spectrum:
    """The spectrum with these singular values, falling and above 0."""
    values = singular_values.numpy()  # a few numbers, for which NumPy is quicker than PyTorch
    shares = values**2 / (values**2).sum()
    after = np.append(values[1:], 0)[: len(values)]
    return Spectrum(
        singular_values=singular_values,
        stable_rank=float(1 / shares[0]) if len(shares) else np.nan,
        entropy_rank=float(np.exp(entr(shares).sum())) if len(shares) else np.nan,
        energy_rank=int((shares.cumsum() < ENERGY - 1e-12).sum()) + 1 if len(shares) else 0,
        gaps=torch.from_numpy((values - after) / values),
    )
