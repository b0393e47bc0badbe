"""The factors of an arm at one site, and two matrices whose product is ΔW."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deltaw.maths.subspace import Difference
from deltaw.run.adapter import Adapter, Site
from deltaw.run.tensors import Buffers


@dataclass(frozen=True)
class Factors:
    """One arm's factors at one site, and the factors before its first step.

    ΔW = scale · `outer` · `inner`. Most arms start from B₀ = 0, and ΔW = scale · B A. An arm that altered its base
    started from B₀A₀ ≠ 0, and ΔW = scale · (B A − B₀A₀).

    Attributes:
        B: None where no basis needs it.
        A_start: None where it is not known.
        B_start: None unless the arm altered its base.
        scale: factor of the product in ΔW.
        alters_base: whether B₀A₀ ≠ 0; then A_start is known.
    """

    A: Float[Tensor, "rank d_in"]
    B: Float[Tensor, "d_out rank"] | None
    A_start: Float[Tensor, "rank d_in"] | None
    B_start: Float[Tensor, "d_out rank"] | None
    scale: float
    alters_base: bool

    @property
    def update(self) -> Difference | None:
        """A − A₀; None where A₀ is not known."""
        return None if self.A_start is None else Difference(self.A, self.A_start)

    @property
    def inner(self) -> Float[Tensor, "rows d_in"]:
        """Rows that span the input side of ΔW: A, or A − A₀ and A₀, each divided by its norm."""
        if not self.alters_base or self.update is None:
            return self.A
        norm_update, norm_start = self._norms
        return torch.cat([self.update.double() / norm_update, self.update.start.double() / norm_start])

    @property
    def outer(self) -> Float[Tensor, "d_out columns"]:
        """Columns that span the output side of ΔW: B, or ‖A − A₀‖ B and ‖A₀‖ (B − B₀).

        B A − B₀A₀ = B (A − A₀) + (B − B₀) A₀, so small steps from the start do not cancel.

        Raises:
            ValueError: B was not read.
        """
        if self.B is None:
            raise ValueError("B was not read: read the factors with B")
        if self.B_start is None:
            return self.B
        norm_update, norm_start = self._norms
        return torch.cat([norm_update * self.B.double(), norm_start * (self.B.double() - self.B_start)], dim=1)

    @property
    def A_from_inner(self) -> Float64[Tensor, "rank rows"]:  # noqa: N802
        """M with A = M · `inner`."""
        one = torch.eye(len(self.A), dtype=torch.float64)
        return torch.cat([norm * one for norm in self._norms], dim=1) if self.alters_base else one

    @cached_property
    def _norms(self) -> tuple[float, float]:
        """‖A − A₀‖ and ‖A₀‖, and 1 in place of 0, so that both can divide."""
        assert self.update is not None
        return float(self.update.double().norm()) or 1.0, float(self.update.start.double().norm()) or 1.0


def read_factors(
    site: Site, adapters: Sequence[Adapter], device: str = "cpu", buffers: Buffers | None = None, with_B: bool = True
) -> list[Factors]:
    """Read the factors of every adapter at one site; a folder that several adapters share is read once.

    Args:
        site: a site of all adapters.
        device: device to put the factors on.
        buffers: memory to read into; the factors are valid until the next site is read into it.
        with_B: whether B is needed as well.

    Raises:
        UserError: a file has changed since it was opened, or, without `buffers`, a factor is not finite.
    """
    sources = _sources(adapters)
    A = {folder: source.A(site, buffers).to(device) for folder, source in sources.items()}
    return [
        Factors(
            A=A[arm.folder],
            B=arm.B(site, buffers).to(device) if with_B else None,
            A_start=A[arm.start.folder] if arm.start else None,
            B_start=arm.start.B(site).to(device) if with_B and arm.start and arm.alters_base else None,
            scale=arm.sites[site].scale,
            alters_base=arm.alters_base,
        )
        for arm in adapters
    ]


def check_finite(site: Site, adapters: Sequence[Adapter]) -> None:
    """Read each factor by itself, which names the file that holds NaN or infinity.

    Raises:
        UserError: a factor holds a value that is not finite.
    """
    for source in _sources(adapters).values():
        source.A(site), source.B(site)


def _sources(adapters: Sequence[Adapter]) -> dict[Path, Adapter]:
    """The adapters and their starts, by folder."""
    return {arm.folder: arm for arm in adapters} | {arm.start.folder: arm.start for arm in adapters if arm.start}
