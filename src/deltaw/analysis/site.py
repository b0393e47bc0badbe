"""One site of several adapters: the directions of each adapter in every basis, and what two adapters share."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.linalg import vector_norm

from deltaw.analysis.factors import Factors, check_finite, read_factors
from deltaw.maths.subspace import Directions, Stack, phi, update_directions
from deltaw.run.adapter import Adapter, Site
from deltaw.run.tensors import Buffers


@dataclass(frozen=True)
class Stacks:
    """The matrices of all arms at one site, by the space that their rows lie in.

    A matrix is named by its arm's number.

    Attributes:
        inner: `Factors.inner`.
        update: A − A₀ of the arms whose A₀ is known; None where no A₀ is known.
        outer: `Factors.outer`, transposed; None where B was not read.
    """

    inner: Stack
    update: Stack | None
    outer: Stack | None


@dataclass(frozen=True)
class Basis:
    """One basis at one site: the directions of the arms that have it, by their numbers, and the stack they lie in."""

    stack: Stack
    directions: dict[int, Directions]


@dataclass(frozen=True)
class SiteMeasures:
    """What is measured at one site. An adapter is known by its number, its place in `adapters`.

    Attributes:
        bases: the bases to report.
        factors: the factors of each adapter.
        measured: every basis that the files allow, reported or not.
    """

    site: Site
    adapters: Sequence[Adapter]
    bases: Collection[str]
    factors: list[Factors]
    stacks: Stacks
    measured: dict[str, Basis]

    def directions(self, basis: str, number: int) -> Directions | None:
        """An adapter's directions in one basis; their `values` are the singular values of A, A − A₀ or ΔW.

        None where the basis is not reported, or needs a start that is not known.
        """
        reported = basis in self.bases and basis in self.measured
        return self.measured[basis].directions.get(number) if reported else None

    def cosines(self, basis: str, one: int, other: int) -> Float64[Tensor, "k_one k_other"] | None:
        """Cosines between the directions of two adapters; None where one has no directions in this basis."""
        first, second = self.directions(basis, one), self.directions(basis, other)
        return self.measured[basis].stack.cosines(first, second) if first and second else None

    def phi(self, basis: str, one: int, other: int) -> Float64[Tensor, "low high"]:
        """φ of two adapters for every pair of sizes; both must have directions in the basis.

        Sizes go up to an adapter's rank, and up to twice its rank for ΔW = scale · (B A − B₀A₀).
        """
        cosines = self.cosines(basis, one, other)
        assert cosines is not None
        return phi(cosines, self._size(basis, one), self._size(basis, other))

    def moved(self, number: int) -> float | None:
        """‖A − A₀‖_F / ‖A₀‖_F; None where A₀ is not known or 0."""
        start = self.factors[number].A_start
        norm = 0.0 if start is None else float(vector_norm(start, dtype=torch.float64))
        return self._norm_of_update(number) / norm if norm else None

    def row_cosine(self, one: int, other: int) -> float:
        """Mean cosine between row n of one A and row n of the other, for n up to the smaller rank."""
        A, A_other = (self.measured["A"].directions[number] for number in (one, other))
        rows = min(len(A.left), len(A_other.left))
        products = A.coordinates @ self.stacks.inner.cosines(A, A_other) @ A_other.coordinates.T
        norms = A.coordinates.norm(dim=1)[:rows] * A_other.coordinates.norm(dim=1)[:rows]
        cosines = products.diagonal() / norms  # NaN where a row is 0, as padding of a rank
        return float(cosines.nanmean())

    def full_rank(self, number: int) -> bool:
        """Whether ΔW is measured and has as many directions as A: then both have one span on the input side."""
        if "input" not in self.measured:
            return False
        on_A, on_input = (self.measured[basis].directions[number] for basis in ("A", "input"))
        return len(on_A.values) == len(on_input.values)

    def _norm_of_update(self, number: int) -> float:
        return float(self.measured["update"].directions[number].values.norm())

    def _rank(self, number: int) -> int:
        return self.adapters[number].sites[self.site].rank

    def _size(self, basis: str, number: int) -> int:
        """The most directions that the basis' matrix can have."""
        doubled = self.factors[number].alters_base and basis in ("input", "output")
        return 2 * self._rank(number) if doubled else self._rank(number)


def measure_site(
    site: Site,
    adapters: Sequence[Adapter],
    bases: Collection[str],
    device: str = "cpu",
    buffers: Buffers | None = None,
) -> SiteMeasures:
    """Read one site of several adapters, and find the directions of each.

    Args:
        site: a site of all adapters.
        adapters: at least one.
        bases: names in `deltaw.analysis.bases.BASES`.
        device: device that multiplies the factors.
        buffers: memory to read factors into; another site may use it once this site is measured.

    Raises:
        UserError: a factor cannot be read, or holds a value that is not finite.
    """
    with_B = not {"input", "output"}.isdisjoint(bases)
    factors = read_factors(site, adapters, device, buffers, with_B)
    try:
        stacks = _stacks(factors, with_B)
    except ValueError:
        check_finite(site, adapters)
        raise
    return SiteMeasures(site, adapters, bases, factors, stacks, _bases(factors, stacks))


def _stacks(factors: Sequence[Factors], with_B: bool) -> Stacks:
    updates = {k: arm.update for k, arm in enumerate(factors) if arm.update is not None}
    return Stacks(
        inner=Stack({k: arm.inner for k, arm in enumerate(factors)}),
        update=Stack(updates) if updates else None,
        outer=Stack({k: arm.outer.T for k, arm in enumerate(factors)}) if with_B else None,
    )


def _bases(factors: Sequence[Factors], stacks: Stacks) -> dict[str, Basis]:
    """Every basis that these stacks allow."""
    bases = {"A": Basis(stacks.inner, {k: _of_A(arm, stacks.inner.directions[k]) for k, arm in enumerate(factors)})}
    if stacks.update:
        bases["update"] = Basis(stacks.update, stacks.update.directions)
    if stacks.outer:
        sides = [update_directions(stacks.inner.directions[k], stacks.outer.directions[k]) for k in range(len(factors))]
        for basis, stack, side in (("input", stacks.inner, 0), ("output", stacks.outer, 1)):
            bases[basis] = Basis(stack, {k: both[side].scaled(factors[k].scale) for k, both in enumerate(sides)})
    return bases


def _of_A(arm: Factors, inner: Directions) -> Directions:  # noqa: N802
    """The directions of A, given those of `Factors.inner`."""
    return inner.of_product(arm.A_from_inner) if arm.alters_base else inner
