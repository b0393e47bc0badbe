"""ΔW against the frozen weight W: shared directions, and amplification (arXiv 2106.09685, §7.3, App. H.3 and H.4)."""

from dataclasses import dataclass
from math import nan, sqrt

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deltaw.maths.subspace import Stack, numerical_rank, phi

DRAWS = 10  # sets of random directions


@dataclass(frozen=True)
class Amplification:
    """A row of Table 7: how much of W lies in k output directions U and k input directions V (Frobenius norms).

    k is the numerical rank of ΔW, at most its r, so that all columns compare equally many directions.

    Attributes:
        norm_W: ‖W‖.
        norm_update: ‖ΔW‖.
        by_update: ‖Uᵀ W V‖ with U, V the singular directions of ΔW.
        by_W: ‖Uᵀ W V‖ with U, V the k leading singular directions of W.
        by_random: ‖Uᵀ W V‖ with random U, V: root mean square of 10 seeded draws.
        by_random_closed: k ‖W‖ / √(d_out d_in), the root mean square over all draws.
        factor: norm_update / by_update, the amplification of W's part in ΔW's directions; NaN where ΔW is 0.
    """

    norm_W: float  # noqa: N815
    norm_update: float
    by_update: float
    by_W: float  # noqa: N815
    by_random: float
    by_random_closed: float
    factor: float


class FrozenWeight:
    """One frozen W, decomposed once.

    Args:
        W: d_out × d_in.
        count: number of leading singular directions to keep.
        device: device that decomposes and multiplies W.

    Attributes:
        values: the leading singular values of W.
        leading: its leading right-singular vectors as rows, each times its singular value.
    """

    def __init__(self, W: Float[Tensor, "d_out d_in"], count: int, device: str = "cpu"):
        self.W = W.to(device).double()
        squares, vectors = torch.linalg.eigh(self.W.T @ self.W)
        self.values = squares.flip(0)[:count].clamp(min=0).sqrt()
        self.leading = self.values[:, None] * vectors.T.flip(0)[:count]

    def similarity(self, A: Float[Tensor, "r d_in"]) -> Float64[Tensor, "count r"]:
        """φ(i, j) between i leading right-singular directions of W and j of A (Fig. 8)."""
        stack = Stack({"W": self.leading, "A": A.to(self.leading.device)})
        return phi(stack.cosines(stack.directions["W"], stack.directions["A"]), len(self.leading), len(A))

    def amplification(self, A: Float[Tensor, "r d_in"], B: Float[Tensor, "d_out r"], scale: float) -> Amplification:
        """The row of Table 7 for ΔW = scale · B A; r ≤ `count`."""
        (Q_out, R_out), (Q_in, R_in) = (torch.linalg.qr(factor.to(self.W)) for factor in (B, A.T))
        left, values, Vh = torch.linalg.svd(R_out @ R_in.T)
        k = numerical_rank(values.cpu())
        U, V = (Q_out @ left[:, :k]).T, Vh[:k] @ Q_in.T
        norm, update, by_update = float(self.W.norm()), abs(scale) * float(values.norm()), _projected(U, self.W, V)
        return Amplification(
            norm_W=norm,
            norm_update=update,
            by_update=by_update,
            by_W=float(self.values[:k].norm()),
            by_random=self._by_random(k),
            by_random_closed=k * norm / sqrt(self.W.numel()),
            factor=update / by_update if by_update else nan,
        )

    def _by_random(self, k: int) -> float:
        """Root mean square of ‖Uᵀ W V‖ over draws of k random directions."""
        generator = torch.Generator().manual_seed(0)
        norms = []
        for _ in range(DRAWS):
            bases = [torch.randn(width, k, generator=generator, dtype=torch.float64) for width in self.W.shape]
            U, V = (torch.linalg.qr(basis).Q.T.to(self.W) for basis in bases)
            norms.append(_projected(U, self.W, V))
        return sqrt(sum(norm**2 for norm in norms) / DRAWS)


def _projected(U: Float64[Tensor, "k d_out"], W: Float64[Tensor, "d_out d_in"], V: Float64[Tensor, "k d_in"]) -> float:
    """‖Uᵀ W V‖, with the directions as rows."""
    return float((U @ W @ V.T).norm())
