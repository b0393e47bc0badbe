"""The subspaces that LoRA factors span, and the paper's similarity φ of two (arXiv 2106.09685, §7.2).

Everything here follows from one small matrix: the inner products of all rows of all matrices that are compared.
No vector as long as the space is kept, and no matrix of width × width is formed.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

NEGLIGIBLE = 1e-6  # share of the largest singular value; a direction below it is rounding, not training

# Inner products square the ratio of the smallest singular value to the largest. Below this ratio, the smallest
# directions would be known to less than six digits: such a matrix is made orthogonal first.
ILL_CONDITIONED = 1e-3

COLUMNS = 2048  # multiplied at once

Matrix = Tensor | ArrayLike  # what a user may give for a matrix


@dataclass(frozen=True)
class Directions:
    """The orthonormal directions D of a matrix X = left · diag(values) · D, by falling singular value.

    D has one row for each of the k singular values above rounding. It is stored as combinations of X's rows.

    Attributes:
        left: left-singular vectors of X; for ΔW = scale · B A they are combinations of the other factor's directions.
        values: singular values of X.
        name: name of X in its `Stack`.
        combination: D = combinationᵀ · (rows of X in the stack).
    """

    left: Float64[Tensor, "n k"]
    values: Float64[Tensor, " k"]
    name: Hashable
    combination: Float64[Tensor, "rows k"]

    @property
    def coordinates(self) -> Float64[Tensor, "n k"]:
        """X in terms of its own directions."""
        return self.left * self.values

    def of_product(self, mixing: Float64[Tensor, "m n"]) -> "Directions":
        """The directions of `mixing` · X, whose rows are combinations of X's rows."""
        left, values, Vh = torch.linalg.svd(mixing @ self.coordinates, full_matrices=False)
        k = numerical_rank(values)
        return Directions(left[:, :k], values[:k], self.name, self.combination @ Vh[:k].T)

    def scaled(self, scale: float) -> "Directions":
        """The directions of `scale` · X; none where `scale` is 0."""
        values = self.values * abs(scale)
        k = numerical_rank(values)
        return replace(self, left=self.left[:, :k], values=values[:k], combination=self.combination[:, :k])


@dataclass(frozen=True)
class Difference:
    """matrix − start, subtracted in float64 and only when it is needed: no copy is kept."""

    matrix: Float[Tensor, "n width"]
    start: Float[Tensor, "n width"]

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def __len__(self) -> int:
        return len(self.matrix)

    def double(self) -> Float64[Tensor, "n width"]:
        """The whole difference."""
        return self.matrix.double() - self.start

    def write(self, columns: slice, place: Float64[Tensor, "n columns"]) -> None:
        """Write these columns of the difference into `place`."""
        place.copy_(self.matrix[:, columns])
        place.sub_(self.start[:, columns])


class Stack:
    """Named matrices over one space, row below row: the directions of each, and the angles between any two.

    Args:
        matrices: name → matrix (n × width, any n, any precision) or `Difference`. All count in float64.

    Attributes:
        directions: name → directions of that matrix.

    Raises:
        ValueError: a matrix holds a value that is not finite.
    """

    def __init__(self, matrices: Mapping[Any, Float[Tensor, "_ width"] | Difference]):
        ends = accumulate(map(len, matrices.values()))
        self._rows = {name: slice(end - len(matrices[name]), end) for name, end in zip(matrices, ends, strict=True)}
        self._products = _products(list(matrices.values()))
        self.directions = {name: self._eigenvectors(name) for name in matrices}
        if ill := [found for found in self.directions.values() if _ill_conditioned(found.values)]:
            self._refine(dict(matrices), ill)

    def cosines(self, one: Directions, other: Directions) -> Float64[Tensor, "k_one k_other"]:
        """Inner products of the directions of one matrix with those of another."""
        return one.combination.T @ self._block(one.name, other.name) @ other.combination

    def _refine(self, matrices: dict[Any, Tensor | Difference], ill: list[Directions]) -> None:
        """Replace the rows of some matrices by their directions, and multiply again."""
        for found in ill:
            matrix = matrices[found.name].double()
            rows = found.combination.T.to(matrix) @ matrix
            matrices[found.name] = _padded(rows.T, len(matrix)).T
        self._products = _products(list(matrices.values()))
        for found in ill:
            orthogonal = self._eigenvectors(found.name)
            self.directions[found.name] = orthogonal.of_product(_padded(found.coordinates, len(found.left)))

    def _block(self, one: Hashable, other: Hashable) -> Float64[Tensor, "n_one n_other"]:
        return self._products[self._rows[one], self._rows[other]]

    def _eigenvectors(self, name: Hashable) -> Directions:
        squares, vectors = torch.linalg.eigh(self._block(name, name))
        values, vectors = squares.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
        k = numerical_rank(values)
        return Directions(vectors[:, :k], values[:k], name, vectors[:, :k] / values[:k])


def _products(matrices: Sequence[Tensor | Difference]) -> Float64[Tensor, "rows rows"]:
    """Inner products of all rows of all matrices, by slices of columns that fit into the processor's cache."""
    ends = list(accumulate(map(len, matrices)))
    width, device = matrices[0].shape[1], matrices[0].device
    products = torch.zeros(ends[-1], ends[-1], dtype=torch.float64, device=device)
    upright = isinstance(matrices[0], Tensor) and matrices[0].stride(0) == 1  # as Bᵀ lies in memory
    shape = ends[-1], min(COLUMNS, width)
    memory = torch.empty(shape[::-1] if upright else shape, dtype=torch.float64, device=device)
    for start in range(0, width, COLUMNS):
        part = slice(start, min(start + COLUMNS, width))
        columns = (memory.T if upright else memory)[:, : part.stop - start]
        for matrix, end in zip(matrices, ends, strict=True):
            place = columns[end - len(matrix) : end]
            matrix.write(part, place) if isinstance(matrix, Difference) else place.copy_(matrix[:, part])
        products.addmm_(columns, columns.T)
    if not products.diagonal().isfinite().all():
        raise ValueError("a factor holds NaN or infinity, or a number too large to square: it has no directions")
    return products.cpu()


def _padded(columns: Float64[Tensor, "n k"], count: int) -> Float64[Tensor, "n count"]:
    """Append columns of zeros up to `count`."""
    return pad(columns, (0, count - columns.shape[1]))


def _ill_conditioned(values: Float64[Tensor, " k"]) -> bool:
    return len(values) > 0 and bool(values[-1] < ILL_CONDITIONED * values[0])


def numerical_rank(singular_values: Float64[Tensor, " k"]) -> int:
    """How many of the singular values, largest first, are above rounding: 0 to k; 0 for a zero matrix."""
    return int((singular_values > NEGLIGIBLE * singular_values[:1]).sum())


def update_directions(A: Directions, B: Directions) -> tuple[Directions, Directions]:
    """The input and output directions of B A, its right- and left-singular vectors.

    Args:
        A: directions of A (r × d_in).
        B: directions of Bᵀ (r × d_out), in a stack over the output space.

    Returns:
        Input directions, in the stack of A, and output directions, in the stack of Bᵀ; their `values` are the
        singular values of B A.
    """
    left, values, Vh = torch.linalg.svd(B.coordinates.T @ A.coordinates, full_matrices=False)
    k = numerical_rank(values)
    left, values, right = left[:, :k], values[:k], Vh[:k].T
    return (
        Directions(left, values, A.name, A.combination @ right),
        Directions(right, values, B.name, B.combination @ left),
    )


def phi(cosines: Float64[Tensor, "k_low k_high"], low: int, high: int) -> Float64[Tensor, "low high"]:
    """φ for every pair of sizes up to `low` and `high` (Eq. 4), from the cosines between two matrices' directions.

    Returns:
        φ, dimensionless, within [0, 1]; entry `[i - 1, j - 1]` holds φ(i, j). NaN beyond the numerical ranks k.
    """
    k_low, k_high = cosines.shape
    overlap = cosines.square().cumsum(0).cumsum(1)  # ‖U_iᵀ V_j‖²_F, all i and j at once
    i, j = torch.arange(1, k_low + 1)[:, None], torch.arange(1, k_high + 1)
    result = torch.full((low, high), torch.nan, dtype=torch.float64)
    result[:k_low, :k_high] = (overlap / torch.minimum(i, j)).clamp(max=1)  # rounding can end at 1 + 1e-15
    return result


class Shared(NamedTuple):
    """What the directions of two matrices, of numerical ranks k and k', have in common; each number within [0, 1]."""

    first: Float64[Tensor, ""]  # φ(1, 1)
    row: Float64[Tensor, ""]  # φ(1, k'): the share of the first direction that lies in the whole other span
    corner: Float64[Tensor, ""]  # φ(k, k'), between the whole spans: the mean of cos2
    cos2: Float64[Tensor, " angles"]  # cos²θ of the min(k, k') principal angles, falling


def shared(cosines: Float64[Tensor, "k_one k_other"]) -> Shared:
    """Summarise `cosines`. k_one, k_other ≥ 1."""
    squares = cosines.square()
    cos2 = torch.linalg.svdvals(cosines).square().clamp(max=1)
    return Shared(squares[0, 0].clamp(max=1), squares[0].sum().clamp(max=1), cos2.mean(), cos2)


def similarity(A_low: Matrix, A_high: Matrix) -> Float64[Tensor, "low high"]:
    """Similarity φ of the leading subspaces of two LoRA factors, for every pair of sizes (Eq. 4).

    With U_i the first i right-singular vectors of `A_low` and V_j the first j of `A_high`, as columns,

        φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j).

    φ is 1 where one span contains the other, 0 where they are orthogonal, and max(i, j) / width on average between
    two random spans: the level that a claim has to clear (`chance`).

    Args:
        A_low, A_high: rank × width, of any precision: tensors, or what NumPy reads as an array.

    Returns:
        φ, dimensionless, within [0, 1]; entry `[i - 1, j - 1]` holds φ(i, j). NaN where i or j is beyond the
        numerical rank of its factor.

    Raises:
        TypeError: a factor has no numbers in it.
        ValueError: a factor is not rank × width, the widths differ, or a value is not finite.
    """
    low, high = as_matrix("A_low", A_low), as_matrix("A_high", A_high)
    if low.shape[1] != high.shape[1]:
        shapes = " and ".join(" × ".join(map(str, A.shape)) for A in (low, high))
        way_on = "give A.T if these are width × rank" if len(low) == len(high) else "give rank × width of one base"
        raise ValueError(f"A_low and A_high are {shapes}, of different widths: {way_on}")
    stack = Stack({"low": low, "high": high})
    return phi(stack.cosines(stack.directions["low"], stack.directions["high"]), len(low), len(high))


def as_matrix(name: str, given: Matrix) -> Float[Tensor, "rows columns"]:
    """A matrix that a user gives, as a tensor without a gradient.

    Args:
        name: of the argument, for errors.
        given: a tensor, or what NumPy reads as an array.

    Raises:
        TypeError: it has no real numbers in it.
        ValueError: it is no matrix, or it is empty.
    """
    array = given.detach() if isinstance(given, Tensor) else np.asarray(given)
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} is {type(given).__name__} of {array.dtype}: give a matrix of real numbers")
        array = torch.from_numpy(array.astype(np.float64))
    if array.ndim != 2 or not array.numel():
        raise ValueError(f"{name} has the shape {tuple(array.shape)}: give a matrix, rows × columns")
    if array.is_complex() or array.dtype == torch.bool:
        raise TypeError(f"{name} is a tensor of {array.dtype}: give a matrix of real numbers")
    return array if array.is_floating_point() else array.double()
