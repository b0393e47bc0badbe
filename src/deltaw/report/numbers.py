"""What the tables say in numbers: levels beside chance, depth, q against v, the structure in i and j.

Everything is about ΔW_q and ΔW_v. Cells beyond a numerical rank have no φ and count nowhere.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, spearmanr

from deltaw.chance import random_p
from deltaw.report.losses import Losses, losses_of
from deltaw.run import RunDirectory
from deltaw.study import Pair, Source

RARE = 0.01  # a site is beyond chance where random subspaces are as similar at any of all sites in fewer cases


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
    sites: int
    beyond_chance: int  # how many of the sites


@dataclass(frozen=True)
class Trend:
    """Spearman's ρ of mean φ against layer; None with fewer than 4 layers, or where all are equal."""

    layers: int
    rho: float | None
    p: float | None  # two-sided, by permutation: exact up to 8 layers


@dataclass(frozen=True)
class Contrast:
    """ΔW_q against ΔW_v; a correlation is None where φ does not vary."""

    correlation: float | None  # of φ over cells (layer, i, j)
    correlation_beyond_chance: float | None  # of φ − chance: without what i and j alone explain
    difference: float  # mean φ of q − mean φ of v
    layers_above: int  # in how many layers the mean of q is higher
    layers: int


@dataclass(frozen=True)
class Summary:
    """All that `summary.json` holds besides the findings."""

    left: Side
    right: Side
    basis: str
    widths: list[int]  # d_in of the sites
    warning: str | None
    layers: list[int]  # that the figure draws
    zoom: int  # largest j of its zoomed panels
    undefined: int  # cells beyond a numerical rank
    ranges: list[tuple[Range, Range]]  # of each drawn site: all j, and j up to `zoom`
    depth: Trend
    contrast: Contrast
    cells: list[Cell]
    by_i: list[float]  # φ(i, rank of right) on average over sites, from i = 1
    half_at: int | None  # the first i where that has at most half of its lead over chance at i = 1
    losses: list[Losses]

    def cell(self, i: int, j: int) -> Cell | None:
        """One of `cells`; None where no site has it, or it was not chosen."""
        return next((cell for cell in self.cells if (cell.i, cell.j) == (i, j)), None)


def summarise(phi: pd.DataFrame, sites: pd.DataFrame, pair: Pair, layers: list[int]) -> Summary:
    """The numbers of one pair.

    Args:
        phi: the table of φ, with ΔW_q and ΔW_v in each of `layers`.
        sites: the table of sites.
        pair: who was compared.
        layers: those that the figure draws.
    """
    phi = phi[phi.projection.isin(["q", "v"])].round({"phi": 9})  # the SVD's own rounding is no structure
    rank_left, rank_right = int(phi.i.max()), int(phi.j.max())
    zoom = min(rank_left, rank_right)
    defined = phi.dropna(subset="phi")
    by_i = defined[defined.j == rank_right].groupby("i")[["phi", "null_mean"]].mean()
    drawn = [(layer, projection) for layer in layers for projection in ("q", "v")]
    return Summary(
        left=_side(pair.left, rank_left),
        right=_side(pair.right, rank_right),
        basis=phi.basis.iloc[0],
        widths=sorted(set(sites.d_in[sites.projection.isin(["q", "v"])])),
        warning=pair.warning,
        layers=layers,
        zoom=zoom,
        undefined=len(phi) - len(defined),
        ranges=[(_range(defined, *site, rank_right), _range(defined, *site, zoom)) for site in drawn],
        depth=_depth(defined),
        contrast=_contrast(defined),
        cells=_cells(defined, rank_left, rank_right),
        by_i=by_i.phi.tolist(),
        half_at=_half_at((by_i.phi - by_i.null_mean).tolist()),
        losses=losses_of(pair),
    )


def _side(source: Source, rank: int) -> Side:
    if source.run is None:
        return Side(source.name, rank, source.step, source.base, lr=None, lr_tuned=None)
    run = RunDirectory(Path(source.run))
    arm = run.arms[source.name.rpartition("/")[2]]
    tuned = run.best_lr(arm["rank"], arm["seed"]) == arm["lr"]
    return Side(source.name, rank, source.step, source.base, arm["lr"], tuned)


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
    return [_cell(i, j, by_cell.get_group((i, j))) for i, j in sorted(chosen & by_cell.groups.keys())]


def _cell(i: int, j: int, sites: pd.DataFrame) -> Cell:
    p_values = [random_p(*site) for site in sites[["phi", "null_mean", "null_sd"]].itertuples(index=False)]
    return Cell(i, j, _spread(sites), len(sites), beyond_chance=sum(p < RARE / len(sites) for p in p_values))


def _half_at(lead: list[float]) -> int | None:
    """The first i, from 1, with at most half of the lead over chance of i = 1; None without one."""
    if not lead or lead[0] <= 0:
        return None
    return next((i for i, value in enumerate(lead, start=1) if value <= lead[0] / 2), None)


def _depth(phi: pd.DataFrame) -> Trend:
    means = phi.groupby("layer").phi.mean()
    if len(means) < 4 or means.nunique() == 1:  # of 3 layers no order is rarer than 1 in 3
        return Trend(len(means), rho=None, p=None)
    ranks, order = means.rank().to_numpy(), np.arange(len(means))
    test = permutation_test(
        (ranks,),
        lambda permuted, axis: (permuted * order).sum(axis),  # ρ but for a constant offset and factor
        permutation_type="pairings",
        vectorized=True,
        n_resamples=50_000,
        rng=0,
    )
    return Trend(len(means), float(spearmanr(order, ranks).statistic), float(test.pvalue))


def _contrast(phi: pd.DataFrame) -> Contrast:
    q, v = (phi[phi.projection == projection] for projection in ("q", "v"))
    cells = q.merge(v, on=["layer", "i", "j"], suffixes=("_q", "_v"))
    difference = cells.phi_q - cells.phi_v
    by_layer = difference.groupby(cells.layer).mean()
    return Contrast(
        correlation=_correlation(cells.phi_q, cells.phi_v),
        correlation_beyond_chance=_correlation(cells.phi_q - cells.null_mean_q, cells.phi_v - cells.null_mean_v),
        difference=difference.mean(),
        layers_above=int((by_layer > 0).sum()),
        layers=len(by_layer),
    )


def _correlation(q: pd.Series, v: pd.Series) -> float | None:
    return float(np.corrcoef(q, v)[0, 1]) if min(q.nunique(), v.nunique()) > 1 else None
