"""What random combinations of a layer's inputs share with an arm: a number in the tables, and no null.

A gradient on A is a combination of the layer's inputs. The inputs lie close to a few directions, so two arms share more
than random subspaces do, whatever they learned. Random combinations do not model such arms: gradients weight each input
by its error, and Adam leaves the inputs' span. Arms that share nothing but inputs exceed these draws at 40 % of sites,
so no verdict rests on the draws.
"""

from functools import lru_cache

import torch
from jaxtyping import Float64
from torch import Tensor

from deltaw.maths.subspace import NEGLIGIBLE, Directions, Stack

DRAWS = 100


def drawn_cosines(
    stack: Stack,
    other: Directions,
    inputs: Directions,
    rank: int,
    start: Directions | None = None,
    norm: float = 1.0,
    B: Directions | None = None,
) -> Float64[Tensor, "draws k k_other"]:
    """Cosines between the directions of 100 seeded draws and the directions `other`.

    With X the inputs and N Gaussian, a draw stands for an arm's A − A₀, A or B A:

    - N X on the update A − A₀, without `start`;
    - A₀ + c N X on A, with `start`, where ‖c N X‖_F = `norm`;
    - B (A₀ + c N X) on the input side of ΔW, with `start` and `B`.

    Args:
        stack: holds `other`, `inputs` and `start`.
        other: directions of the arm that keeps its factors.
        inputs: directions of X (tokens × d_in).
        rank: rows of the drawn A.
        start: directions of A₀ (rank × d_in).
        norm: ‖A − A₀‖_F of the arm that the draws replace.
        B: directions of Bᵀ of the arm that the draws replace, from any stack.
    """
    draws = _gaussian(rank, len(inputs.values)) * inputs.values  # N X in terms of X's directions: a rotation of N
    frame = [inputs]
    if start:
        scale = norm / torch.linalg.matrix_norm(draws, keepdim=True)
        draws = torch.cat([scale * draws, start.coordinates.expand(DRAWS, -1, -1)], dim=2)
        frame.append(start)
    inner = torch.cat([torch.cat([stack.cosines(one, two) for two in frame], 1) for one in frame])
    squares, vectors = torch.linalg.eigh(draws @ inner @ draws.mT)
    values, vectors = squares.flip(1).clamp(min=0).sqrt(), vectors.flip(2)
    k = int((values > NEGLIGIBLE * values[:, :1]).sum(1).min())
    values, vectors = values[:, None, :k], vectors[:, :, :k]
    combinations = vectors / values
    if B:
        combinations = combinations @ torch.linalg.svd(B.coordinates.T @ (vectors * values), full_matrices=False).Vh.mT
    return combinations.mT @ (draws @ torch.cat([stack.cosines(part, other) for part in frame]))


@lru_cache(maxsize=2)
def _gaussian(rank: int, count: int) -> Float64[Tensor, "draws rank count"]:
    """N of every draw, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(DRAWS, rank, count, generator=generator, dtype=torch.float64)
