"""All that is measured at one site: the directions of every adapter in every basis, and what two of them share."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deltaw.maths.input_draws import drawn_cosines
from deltaw.maths.subspace import NEGLIGIBLE, Difference, Directions, Shared, Stack, phi, shared, update_directions
from deltaw.run.adapter import Adapter, Site
from deltaw.run.tensors import Buffers

# Whose subspaces are compared: of A (the paper's choice), of A − A₀, and the right- and left-singular vectors of ΔW.
BASES = ("A", "update", "input", "output")

_STACK = {"A": "inner", "input": "inner", "update": "update", "output": "outer"}


class SiteMeasures:
    """One site of several adapters, read once.

    The adapters are known by their number. Where one altered its base (B₀ ≠ 0), ΔW is B A − B₀ A₀.

    Args:
        site: a site of all of them.
        adapters: at least one.
        bases: of `BASES`; "update" has nothing for an adapter whose start is not known.
        device: where the factors are multiplied.
        inputs: token inputs of the module, for the level that they alone give.
        buffers: memory to read factors into, which another site may use once this one is measured.

    Raises:
        UserError: a factor cannot be read, or holds a value that is not finite.
    """

    def __init__(
        self,
        site: Site,
        adapters: Sequence[Adapter],
        bases: Collection[str],
        device: str = "cpu",
        inputs: Float[Tensor, "tokens d_in"] | None = None,
        buffers: Buffers | None = None,
    ):
        self.site, self.adapters, self.bases = site, adapters, bases
        sources = {arm.folder: arm for arm in adapters} | {arm.start.folder: arm.start for arm in adapters if arm.start}
        self._A = {folder: arm.A(site, buffers).to(device) for folder, arm in sources.items()}
        self._given = [] if inputs is None else [inputs.to(device)]
        self._stacks: dict[str, Stack] = {}
        self._directions: dict[tuple[str, int], Directions] = {}
        self._starts: dict[int, Directions] = {}
        try:
            self._stack_inner()
            if self._numbers("update"):
                self._stack_updates()
            if {"input", "output"} & set(bases):
                self._stack_outer(device, buffers)
        except ValueError:
            for arm in sources.values():  # read by themselves, factors are checked one by one
                arm.A(site), arm.B(site)
            raise

    def directions(self, basis: str, number: int) -> Directions | None:
        """Of one adapter in one basis, `values` those of the matrix itself; None where its start would be needed."""
        return self._directions.get((basis, number)) if basis in self.bases else None

    def cosines(self, basis: str, one: int, other: int) -> Float64[Tensor, "k_one k_other"] | None:
        """Between the directions of two adapters; None where one of them has none in this basis."""
        first, second = self.directions(basis, one), self.directions(basis, other)
        return self._stacks[_STACK[basis]].cosines(first, second) if first and second else None

    def phi(self, basis: str, one: int, other: int) -> Float64[Tensor, "low high"]:
        """φ for every pair of sizes that the directions of two adapters can have, which both have the basis."""
        cosines = self.cosines(basis, one, other)
        assert cosines is not None
        return phi(cosines, self._size(basis, one), self._size(basis, other))

    def drawn(self, basis: str, one: int, other: int) -> Shared | None:
        """What is shared where the larger of two adapters is redrawn from the inputs; None where that is not defined.

        That is without inputs, on the output side, and where the larger has no known start, altered its base or never
        moved from its start.
        """
        larger, smaller = (other, one) if self._rank(other) >= self._rank(one) else (one, other)
        fixed, start = self.directions(basis, smaller), self._start(larger)
        redrawable = basis != "output" and start is not None and not self.adapters[larger].alters_base
        if not self._given or not redrawable or not fixed or not len(fixed.values):
            return None
        stack, rank = self._stacks[_STACK[basis]], self._rank(larger)
        inputs = stack.directions[len(self._numbers(basis))]
        if basis == "update":
            cosines = drawn_cosines(stack, fixed, inputs, rank)
        else:
            norm = float(self._directions["update", larger].values.norm())
            if norm <= NEGLIGIBLE * float(self._starts[larger].values.norm()):
                return None  # an A that stayed at its start has no update to redraw
            B = self._stacks["outer"].directions[larger] if basis == "input" else None
            cosines = drawn_cosines(stack, fixed, inputs, rank, self._starts[larger], norm, B)
        return shared(cosines if larger == one else cosines.mT)

    def moved(self, number: int) -> float | None:
        """‖A − A₀‖_F / ‖A₀‖_F; None where A₀ was not read."""
        start = self._start(number)
        if start is None:
            return None
        return float(self._directions["update", number].values.norm()) / float(start.float().norm())

    def row_cosine(self, one: int, other: int) -> float:
        """Mean cosine of the rows of two A's, row by row up to the smaller rank: near 1 where they started as one."""
        A, A_other = (self._directions["A", k] for k in (one, other))
        rows = min(len(A.left), len(A_other.left))
        products = A.coordinates @ self._stacks["inner"].cosines(A, A_other) @ A_other.coordinates.T
        norms = A.coordinates.norm(dim=1)[:rows] * A_other.coordinates.norm(dim=1)[:rows]
        return float((products.diagonal() / norms).mean())

    def _rank(self, number: int) -> int:
        return self.adapters[number].sites[self.site].rank

    def _size(self, basis: str, number: int) -> int:
        """Most directions that there can be: of B A − B₀ A₀ twice the rank."""
        doubled = self.adapters[number].alters_base and basis in ("input", "output")
        return 2 * self._rank(number) if doubled else self._rank(number)

    def _start(self, number: int) -> Tensor | None:
        start = self.adapters[number].start
        return self._A.get(start.folder) if start else None

    def _numbers(self, basis: str) -> list[int]:
        """The adapters of a basis' stack, in its order; after them come the inputs."""
        return [k for k, _ in self._numbered if basis != "update" or self._start(k) is not None]

    def _stack_inner(self) -> None:
        """Rows of A; of an arm that altered its base those of A − A₀ and A₀, each scaled to norm 1."""
        matrices = [self._both_parts(k) if arm.alters_base else self._A[arm.folder] for k, arm in self._numbered]
        started = {k: start for k, _ in self._numbered if self._given and (start := self._start(k)) is not None}
        stack = self._stacks["inner"] = Stack(*matrices, *self._given, *started.values())
        for k, arm in self._numbered:
            found = stack.directions[k]
            whole = [norm * torch.eye(self._rank(k), dtype=torch.float64) for norm in self._norms(k)]
            self._directions["A", k] = found.of_product(torch.cat(whole, 1)) if arm.alters_base else found
        after = len(matrices) + len(self._given)
        self._starts = {k: stack.directions[after + n] for n, k in enumerate(started)}

    def _stack_updates(self) -> None:
        numbers = self._numbers("update")
        differences = [self._difference(k) for k in numbers]
        stack = self._stacks["update"] = Stack(*differences, *self._given)
        self._directions |= {("update", k): stack.directions[n] for n, k in enumerate(numbers)}

    def _stack_outer(self, device: str, buffers: Buffers | None) -> None:
        """Columns of B; of an arm that altered its base those of the B that goes with A − A₀ and A₀.

        B A − B₀ A₀ = B (A − A₀) + (B − B₀) A₀: small steps from the start do not cancel.
        """
        matrices = []
        for k, arm in self._numbered:
            B = arm.B(self.site, buffers).to(device)
            if arm.alters_base and arm.start:
                moved, whole = self._norms(k)
                B = torch.cat([moved * B.double(), whole * (B.double() - arm.start.B(self.site).to(device))], dim=1)
            matrices.append(B.T)
        stack = self._stacks["outer"] = Stack(*matrices)
        for k, arm in self._numbered:
            scale = arm.sites[self.site].scale
            both = update_directions(self._stacks["inner"].directions[k], stack.directions[k])
            for basis, found in zip(("input", "output"), both, strict=True):
                self._directions[basis, k] = replace(found, values=found.values * scale)

    @property
    def _numbered(self) -> list[tuple[int, Adapter]]:
        return list(enumerate(self.adapters))

    def _difference(self, number: int) -> Difference:
        """A − A₀."""
        start = self._start(number)
        assert start is not None
        return Difference(self._A[self.adapters[number].folder], start)

    def _both_parts(self, number: int) -> Float64[Tensor, "_ d_in"]:
        difference = self._difference(number)
        moved, whole = self._norms(number)
        return torch.cat([difference.double() / moved, difference.start.double() / whole])

    def _norms(self, number: int) -> tuple[float, float]:
        """‖A − A₀‖ and ‖A₀‖, or 1 for 0; of an arm that altered its base."""
        if not self.adapters[number].alters_base:
            return 1.0, 1.0
        difference = self._difference(number)
        return float(difference.double().norm()) or 1.0, float(difference.start.double().norm()) or 1.0
