"""The table of φ: a row for each cell (i, j) of each pair, site and basis."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from deltaw.analysis import columns
from deltaw.maths.random_subspaces import chance, random_p
from deltaw.maths.subspace import similarity


@dataclass(frozen=True)
class PairKey:
    """What identifies a pair at a site in a basis: the fields are `columns.PAIR`."""

    left: str
    right: str
    step_left: int | None
    step_right: int | None
    layer: int
    projection: str
    basis: str


@dataclass(frozen=True)
class PhiGrid:
    """φ of one pair at one site in one basis, for every pair of sizes.

    Attributes:
        phi: entry [i - 1, j - 1] holds φ(i, j); NaN in whole rows or columns, beyond the numerical ranks.
        width: dimension of the space.
        first_i: the smallest i that the table holds.
    """

    key: PairKey
    phi: Float64[Tensor, "low high"]
    width: int
    first_i: int = 1

    @property
    def kept(self) -> slice:
        """The rows of `phi` that the table holds."""
        return slice(self.first_i - 1, None)


def phi_table(grids: Sequence[PhiGrid]) -> pd.DataFrame:
    """A row per cell of each grid; the columns are `columns.PHI`."""
    sizes = np.array([grid.phi[grid.kept].numel() for grid in grids], dtype=int)
    keys = pd.DataFrame([vars(grid.key) for grid in grids], columns=list(columns.PAIR))
    keys = keys.astype({"step_left": "Int64", "step_right": "Int64"})
    table = keys.take(np.repeat(np.arange(len(keys)), sizes)).reset_index(drop=True)
    numbers = np.concatenate([np.empty((4, 0)), *map(_sizes_and_chance, grids)], axis=1)
    i, j = numbers[:2].astype(int)
    phi = np.concatenate([np.empty(0), *(grid.phi[grid.kept].numpy().reshape(-1) for grid in grids)])
    return table.assign(
        i=i,
        j=j,
        phi=phi,
        null_mean=numbers[2],
        null_sd=numbers[3],
        p_value=random_p(phi, i, j, np.repeat(np.array([grid.width for grid in grids], dtype=int), sizes)),
        reason=np.concatenate([np.empty(0, dtype=object), *map(_reasons, grids)]),
    )


def _sizes_and_chance(grid: PhiGrid) -> NDArray[np.float64]:
    """i, j, and mean and sd of φ(i, j) between random subspaces: 4 × cells."""
    return _chance_grid(*grid.phi.shape, grid.width)[:, grid.kept].reshape(4, -1)


@lru_cache(maxsize=64)
def _chance_grid(low: int, high: int, width: int) -> NDArray[np.float64]:
    """i, j, and mean and sd of φ(i, j) between random subspaces, each low × high; mean and sd NaN beyond the width."""
    i, j = np.meshgrid(np.arange(1, low + 1), np.arange(1, high + 1), indexing="ij")
    mean, sd = np.full((2, low, high), np.nan)
    inside = chance(min(low, width), min(high, width), width)
    mean[:width, :width], sd[:width, :width] = inside.mean.numpy(), inside.sd.numpy()
    return np.stack([i, j, mean, sd])


def _reasons(grid: PhiGrid) -> NDArray[np.object_]:
    """Why φ is NaN in each cell; None where it is a number."""
    defined = ~grid.phi.isnan()
    rank_left, rank_right = int(defined.any(1).sum()), int(defined.any(0).sum())
    return _reason_grid(*grid.phi.shape, rank_left, rank_right)[grid.kept].reshape(-1)


@lru_cache(maxsize=256)
def _reason_grid(low: int, high: int, rank_left: int, rank_right: int) -> NDArray[np.object_]:
    reasons = np.full((low, high), None, dtype=object)
    reasons[:, rank_right:] = f"j is beyond the {rank_right} directions of the right adapter"
    reasons[rank_left:] = f"i is beyond the {rank_left} directions of the left adapter"
    return reasons


def gaussian_cells(rank: int, width: int) -> pd.DataFrame:
    """φ of two Gaussian matrices (rank × width) as rows of `columns.PHI`, in layer 0 at the projection "random"."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(rank, width, generator=generator, dtype=torch.float64) for _ in range(2))
    key = PairKey("gaussian", "gaussian'", None, None, 0, columns.RANDOM, "A")
    return phi_table([PhiGrid(key, similarity(one, other), width)])
