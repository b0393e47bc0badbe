"""What random combinations of a layer's own inputs share with an arm: a number in the tables, and no null.

A gradient on A is a combination of the layer's inputs. They lie close to a few directions, so that two arms come to
share directions that random subspaces do not, whatever they learned. Random combinations do not stand for such arms:
gradients weight each input by its error, and Adam leaves the inputs' span. Arms that share inputs alone exceed these
draws at 40 % of sites, so no verdict rests on them.
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
    """Cosines of the directions of drawn A's with those of `other`, for each of 100 seeded draws.

    With X the inputs and N Gaussian, a draw is N X: the null on the update A − A₀. With a `start` it is A₀ + c N X,
    ‖c N X‖_F = `norm`: that on A. With `B` besides, the directions are those of B (A₀ + c N X): that on the input side
    of ΔW.

    Args:
        stack: holds `other`, `inputs` and `start`.
        other: directions of the arm that is not redrawn.
        inputs: directions of X (tokens × d_in).
        rank: rows of the drawn A.
        start: directions of A₀ (rank × d_in).
        norm: ‖A − A₀‖_F of the arm that is redrawn.
        B: directions of its Bᵀ, of any stack.
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
    """Always the same draws."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(DRAWS, rank, count, generator=generator, dtype=torch.float64)
