"""What the tables say in numbers: levels beside chance, depth, q against v, the structure in i and j.

Everything is about the projections chosen. Cells beyond a numerical rank have no φ and count nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deltaw.analysis.pairs import Subject
from deltaw.exhibit.selection import Tables
from deltaw.report.levels import Control, Levels, Spectra, controls_of, levels_of, spectra_of
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory


@dataclass(frozen=True)
class Side:
    """One of the two adapters; None where no run tells."""

    name: str
    rank: int  # the largest over its sites
    step: int | None
    base: str
    lr: float | None
    lr_tuned: bool | None  # whether its learning rate is the best of several at this rank and seed


@dataclass(frozen=True)
class Spread:
    """φ over some cells, and what random subspaces give on average over the same cells."""

    lowest: float
    mean: float
    highest: float
    chance: float


@dataclass(frozen=True)
class Range:
    """One site that the figure draws, over all i and over j from 1 to `columns`."""

    layer: int
    projection: str
    columns: int
    phi: Spread


@dataclass(frozen=True)
class Cell:
    """φ(i, j) over all sites that have it."""

    i: int
    j: int
    phi: Spread


@dataclass(frozen=True)
class Trend:
    """Spearman's ρ of mean φ against layer; None with fewer than 5 layers, or where all are equal."""

    layers: int
    rho: float | None


@dataclass(frozen=True)
class Contrast:
    """The first projection against the second; a correlation is None where φ does not vary."""

    first: str
    second: str
    correlation: float | None  # of φ over cells (layer, i, j)
    correlation_beyond_chance: float | None  # of φ − chance: without what i and j alone explain
    difference: float  # mean φ − chance of the first − that of the second
    layers_above: int  # in how many layers the mean of the first is higher
    layers: int


@dataclass(frozen=True)
class Summary:
    """All that `summary.json` holds besides the findings. What is about cells is in the one basis that is drawn."""

    left: Side
    right: Side
    basis: str
    widths: list[int]  # of the spaces of that basis
    remarks: list[str]
    levels: list[Levels]  # by basis
    controls: list[Control]
    spectra: list[Spectra]
    exhibits: list[str]
    layers: list[int]  # that the figure draws
    zoom: int  # largest j of its zoomed panels
    undefined: int  # cells beyond a numerical rank
    ranges: list[tuple[Range, Range]]  # of each drawn site: all j, and j up to `zoom`
    depth: Trend
    contrast: Contrast | None  # of two projections
    cells: list[Cell]
    by_i: list[float]  # φ(i, rank of right) on average over sites, from i = 1
    half_at: int | None  # the first i where that has at most half of its lead over chance at i = 1
    losses: list[dict[str, Any]]  # rows of `losses_of`
    amplification: list[dict[str, Any]]  # rows of Table 7

    @property
    def drawn(self) -> Levels | None:
        """What is shared in the basis that is drawn; None where no site has directions in it."""
        return next((levels for levels in self.levels if levels.basis == self.basis), None)

    def cell(self, i: int, j: int) -> Cell | None:
        """One of `cells`; None where no site has it, or it was not chosen."""
        return next((cell for cell in self.cells if (cell.i, cell.j) == (i, j)), None)


def summarise(
    tables: Tables,
    subject: Subject,
    basis: str,
    projections: Sequence[str],
    layers: list[int],
    exhibits: list[str],
) -> Summary:
    """The numbers of left and right, and of left and the controls of right.

    Args:
        tables: of `subject`.
        subject: who was compared.
        basis: that the figures draw.
        projections: those to speak of.
        layers: those that Figure 6 draws; each has all of the projections.
        exhibits: that are drawn.
    """
    left, right = subject.left, subject.right
    compared = tables.pairs(subject.pairing, projections)
    phi = tables.cells(subject.pairing, basis, projections)
    phi = phi.round({"phi": 9})  # the last digits are rounding, no structure
    rank_left, rank_right = int(phi.i.max()), int(phi.j.max())
    zoom = min(rank_left, rank_right)
    defined = phi.dropna(subset="phi")
    by_i = defined[defined.j == rank_right].groupby("i")[["phi", "null_mean"]].mean()
    drawn = [(layer, projection) for layer in layers for projection in projections]
    return Summary(
        left=_side(left),
        right=_side(right),
        basis=basis,
        widths=sorted(set(compared.width[compared.basis == basis])),
        remarks=tables.comparison.remarks,
        levels=levels_of(compared),
        controls=controls_of(tables, subject.controls(), projections),
        spectra=spectra_of(tables, [left, right], projections),
        exhibits=exhibits,
        layers=layers,
        zoom=zoom,
        undefined=len(phi) - len(defined),
        ranges=[(_range(defined, *site, rank_right), _range(defined, *site, zoom)) for site in drawn],
        depth=_depth(defined),
        contrast=_contrast(defined, *projections) if len(projections) == 2 else None,
        cells=_cells(defined, rank_left, rank_right),
        by_i=by_i.phi.tolist(),
        half_at=_half_at((by_i.phi - by_i.null_mean).tolist()),
        losses=_records(tables.losses),
        amplification=_records(tables.amplification),
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A dict per row, with None for what is missing."""
    plain = table.astype(object)
    return [
        {str(key): value for key, value in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")
    ]


def _side(adapter: Adapter) -> Side:
    origin, rank = adapter.origin, max((lora.rank for lora in adapter.sites.values()), default=0)
    if origin is None:
        return Side(adapter.name, rank, None, adapter.base, lr=None, lr_tuned=None)
    run = RunDirectory(origin.run)
    arm = run.arms[origin.arm]
    tuned = run.best_lr(arm) == arm["lr"]
    return Side(adapter.name, rank, origin.step, adapter.base, arm["lr"], tuned)


def _spread(cells: pd.DataFrame) -> Spread:
    return Spread(cells.phi.min(), cells.phi.mean(), cells.phi.max(), cells.null_mean.mean())


def _range(phi: pd.DataFrame, layer: int, projection: str, columns: int) -> Range:
    cells = phi[(phi.layer == layer) & (phi.projection == projection) & (phi.j <= columns)]
    return Range(layer, projection, columns, _spread(cells))


def _cells(phi: pd.DataFrame, rank_left: int, rank_right: int) -> list[Cell]:
    """Those that show the structure: φ(k, k), φ(1, k), φ(k, rank of right), k a power of two or a rank."""
    sizes = {2**n for n in range(max(rank_left, rank_right).bit_length())} | {rank_left, rank_right}
    chosen = {cell for k in sizes for cell in ((k, k), (1, k), (k, rank_right))}
    by_cell = phi.groupby(["i", "j"])
    return [Cell(i, j, _spread(by_cell.get_group((i, j)))) for i, j in sorted(chosen & by_cell.groups.keys())]


def _half_at(lead: list[float]) -> int | None:
    """The first i, from 1, with at most half of the lead over chance of i = 1; None without one."""
    if not lead or lead[0] <= 0:
        return None
    return next((i for i, value in enumerate(lead, start=1) if value <= lead[0] / 2), None)


def _depth(phi: pd.DataFrame) -> Trend:
    means = phi.groupby("layer").phi.mean()
    if len(means) < 5 or means.nunique() == 1:
        return Trend(len(means), rho=None)
    return Trend(len(means), float(np.corrcoef(means.rank(), np.arange(len(means)))[0, 1]))


def _contrast(phi: pd.DataFrame, first: str, second: str) -> Contrast:
    q, v = (phi[phi.projection == projection] for projection in (first, second))
    cells = q.merge(v, on=["layer", "i", "j"], suffixes=("_q", "_v"))
    difference = (cells.phi_q - cells.null_mean_q) - (cells.phi_v - cells.null_mean_v)  # their widths may differ
    by_layer = difference.groupby(cells.layer).mean()
    return Contrast(
        first=first,
        second=second,
        correlation=_correlation(cells.phi_q, cells.phi_v),
        correlation_beyond_chance=_correlation(cells.phi_q - cells.null_mean_q, cells.phi_v - cells.null_mean_v),
        difference=difference.mean(),
        layers_above=int((by_layer > 0).sum()),
        layers=len(by_layer),
    )


def _correlation(q: pd.Series, v: pd.Series) -> float | None:
    return float(np.corrcoef(q, v)[0, 1]) if min(q.nunique(), v.nunique()) > 1 else None
