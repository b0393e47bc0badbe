"""The summary in numbers: what was learned, what is shared beside chance and the control pair, and the structure of φ.

All numbers are about the projections of the view. Cells beyond a numerical rank have no φ and do not count.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd

from deltaw.analysis.equal_factors import distinct
from deltaw.analysis.experiment import best_lr
from deltaw.analysis.snapshot import snapshot_of
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.report.learning import Learning, learning_of
from deltaw.report.levels import Control, Levels, Spectra, controls_of, levels_of, spectra_of
from deltaw.report.merging import Merge, merges_of
from deltaw.report.sharing import Contrast, Excess, Slope, contrast_of, depth_of, excesses
from deltaw.run.adapter import Adapter

SITE = ["layer", "projection", "basis"]


@dataclass(frozen=True)
class Side:
    """One of the two adapters. What only a run records is None outside of a run."""

    name: str
    folder: str
    rank: int  # the largest over its sites
    smallest_rank: int  # the smallest; another one than `rank` where a pattern sets ranks
    step: int | None
    base: str
    lr: float | None
    lr_tuned: bool | None  # whether its learning rate is the best of several at this rank and seed


@dataclass(frozen=True)
class Spread:
    """φ over some cells, and the mean φ of random subspaces over the same cells."""

    lowest: float
    mean: float
    highest: float
    chance: float


@dataclass(frozen=True)
class Range:
    """One site that Figure 6 draws, over all i and over j from 1 to `columns`."""

    layer: int
    projection: str
    columns: int
    phi: Spread


@dataclass(frozen=True)
class Cell:
    """φ(i, j) over all sites where it is defined."""

    i: int
    j: int
    phi: Spread


@dataclass(frozen=True)
class Summary:
    """All that `summary.json` holds besides the findings. Numbers about cells are in the basis of the figures."""

    left: Side
    right: Side
    basis: str
    widths: list[int]  # the dimensions d of the spaces in that basis
    remarks: list[str]  # what changes the meaning of all below, the gravest first
    missing: list[str]  # a sentence for the basis that was left out, if one was
    learning: list[Learning]  # of left and right at every seed
    excess: list[Excess]  # by basis and measure
    one_order: bool  # whether the pairs of `excess` are of one seed, whose arms take their examples in the same order
    levels: list[Levels]  # by basis
    controls: list[Control]
    spectra: list[Spectra]
    exhibits: list[str]
    layers: list[int]  # the rows of Figure 6
    zoom: int  # largest j of its zoomed panels
    undefined: int  # number of cells beyond a numerical rank
    ranges: list[tuple[Range, Range]]  # for each site of Figure 6: all j, and j up to `zoom`
    depth: Slope | None  # None where no site has directions in the basis of the figures
    contrast: Contrast | None  # the same, and None where there are not exactly two projections
    cells: list[Cell]
    by_i: list[float]  # φ(i, rank of right) on average over sites, from i = 1
    half_at: int | None  # the first i where `by_i` has at most half of its lead over chance at i = 1
    losses: list[dict[str, Any]]  # rows of `losses_of`
    amplification: list[dict[str, Any]]  # rows of Table 7
    merge: list[Merge]  # by pair; none for two arms of one experiment

    @property
    def levels_in_basis(self) -> Levels | None:
        """The levels in the basis of the figures; None where no site has directions in it."""
        return next((levels for levels in self.levels if levels.basis == self.basis), None)

    def cell(self, i: int, j: int) -> Cell | None:
        """One of `cells`; None where it is not among them."""
        return next((cell for cell in self.cells if (cell.i, cell.j) == (i, j)), None)


def summarise(tables: Tables, view: View, exhibits: list[str]) -> Summary:
    """The numbers about left and right at every seed, and about left and the controls of right.

    Args:
        tables: the tables of the analysis.
        view: the two adapters, and the basis, projections and layers to report.
        exhibits: the exhibits that are drawn.
    """
    subject, projections = view.subject, view.projections
    left, right = subject.left, subject.right
    compared = tables.pairs(subject.pairing, projections)
    phi = tables.cells(subject.pairing, view)
    phi = phi.round({"phi": 9})  # the last digits are rounding errors
    rank_left, rank_right = int(phi.i.max()), int(phi.j.max())
    zoom = min(rank_left, rank_right)
    defined = phi.dropna(subset="phi")
    counted = _without_copies(defined, compared, "first")
    by_i = counted[counted.j == rank_right].groupby("i")[["phi", "null_mean"]].mean()
    compared_at = set(zip(phi.layer, phi.projection, strict=True))
    sites = [site for site in product(view.layers, projections) if site in compared_at]
    of_projections = tables.excess[tables.excess.projection.isin(projections)]
    by_measure = dict(iter(of_projections.groupby("measure", sort=False)))
    excess = pd.concat([_without_copies(rows, compared, str(name)) for name, rows in by_measure.items()]).sort_index()
    measured = bool(excess[excess.basis == view.basis].pair.notna().any())
    return Summary(
        left=_side(left),
        right=_side(right),
        basis=view.basis,
        widths=sorted(set(compared.width[compared.basis == view.basis])),
        remarks=tables.comparison.remarks,
        missing=tables.comparison.missing,
        learning=learning_of(tables, subject.study.arms, projections),
        excess=excesses(excess),
        one_order=subject.study.one_order,
        levels=levels_of(compared),
        controls=controls_of(tables, subject.controls(), projections),
        spectra=spectra_of(tables, [left, right], projections),
        exhibits=exhibits,
        layers=view.layers,
        zoom=zoom,
        undefined=len(phi) - len(defined),
        ranges=[(_range(defined, *site, rank_right), _range(defined, *site, zoom)) for site in sites],
        depth=depth_of(excess, view.basis) if measured else None,
        contrast=contrast_of(excess, view.basis, *projections) if measured and len(projections) == 2 else None,
        cells=_cells(counted, rank_left, rank_right),
        by_i=by_i.phi.tolist(),
        half_at=_half_at((by_i.phi - by_i.null_mean).tolist()),
        losses=_records(tables.losses),
        amplification=_records(tables.amplification),
        merge=merges_of(tables.merge),
    )


def _without_copies(rows: pd.DataFrame, compared: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Rows of cells, or of one measure, without the sites that `distinct` leaves out of the pairs `compared`."""
    copies = compared.drop(distinct(compared, measure).index)[SITE]
    if copies.empty:
        return rows
    return rows[~pd.MultiIndex.from_frame(rows[SITE]).isin(pd.MultiIndex.from_frame(copies))]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A dict per row, with None for what is missing."""
    values = table.astype(object)
    rows = values.where(values.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _side(adapter: Adapter) -> Side:
    ranks = [lora.rank for lora in adapter.sites.values()]
    side = Side(adapter.name, str(adapter.folder), max(ranks), min(ranks), None, adapter.base, lr=None, lr_tuned=None)
    if (snapshot := snapshot_of(adapter)) is None:
        return side
    lr = snapshot.record["lr"]
    return replace(side, step=snapshot.step, lr=lr, lr_tuned=best_lr(snapshot.runs, snapshot.record) == lr)


def _spread(cells: pd.DataFrame) -> Spread:
    return Spread(cells.phi.min(), cells.phi.mean(), cells.phi.max(), cells.null_mean.mean())


def _range(phi: pd.DataFrame, layer: int, projection: str, columns: int) -> Range:
    cells = phi[(phi.layer == layer) & (phi.projection == projection) & (phi.j <= columns)]
    return Range(layer, projection, columns, _spread(cells))


def _cells(phi: pd.DataFrame, rank_left: int, rank_right: int) -> list[Cell]:
    """The cells that show the structure: φ(k, k), φ(1, k) and φ(k, rank of right), for k a power of two or a rank."""
    sizes = {2**n for n in range(max(rank_left, rank_right).bit_length())} | {rank_left, rank_right}
    chosen = {cell for k in sizes for cell in ((k, k), (1, k), (k, rank_right))}
    by_cell = phi.groupby(["i", "j"])
    return [Cell(i, j, _spread(by_cell.get_group((i, j)))) for i, j in sorted(chosen & by_cell.groups.keys())]


def _half_at(lead: list[float]) -> int | None:
    """The first i, from 1, with at most half of the lead over chance at i = 1; None where there is no such i."""
    if not lead or lead[0] <= 0:
        return None
    return next((i for i, value in enumerate(lead, start=1) if value <= lead[0] / 2), None)
