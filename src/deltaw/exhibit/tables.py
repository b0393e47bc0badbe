"""The tables that the exhibits and the summary are made from."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deltaw.analysis.compare import Comparison, Pairing
from deltaw.analysis.excess import rows_of
from deltaw.analysis.output import AMPLIFICATION, EXCESS, LOSSES, MERGE, PAIRS, PHI, SITES
from deltaw.analysis.study import control_pairs
from deltaw.exhibit.view import View
from deltaw.run.adapter import Adapter

CELL = ["layer", "projection", "i", "j"]


@dataclass(frozen=True)
class Tables:
    """The tables that the exhibits and the summary are made from.

    Attributes:
        phi: the cells of `comparison`, of arms against W, and of two Gaussian matrices.
        comparison: the pairs of the study, left with the controls of right, and the pairs that exhibits need.
        excess: what left and right share beyond their control pair: see `excess_of`.
        merge: a row per pair to merge and site: `columns.MERGE`.
        losses: a row per arm of the runs: see `losses_of`.
        amplification: a row per arm and projection at one layer: see `against_base`.
    """

    phi: pd.DataFrame
    comparison: Comparison
    excess: pd.DataFrame
    merge: pd.DataFrame
    losses: pd.DataFrame
    amplification: pd.DataFrame

    def cells(self, pairing: Pairing, view: View) -> pd.DataFrame:
        """φ of one pair in the basis of `view`, at every layer, in the order of the projections of `view`.

        Three columns more than `columns.PHI`: `control`, φ of the control pair, on average over the shadows, NaN
        without shadows; `rank_left` and `rank_right`, LoRA's ranks at the site.
        """
        phi = self.phi[self.phi.basis == view.basis]
        controls = pd.concat([rows_of(control, phi) for control in control_pairs(pairing)] or [phi[:0]])
        means = controls.groupby(CELL).phi.mean().rename("control")
        cells = rows_of(pairing, phi).join(means, on=CELL).join(_ranks(pairing), on=CELL[:2])
        return pd.concat([cells[cells.projection == projection] for projection in view.projections])

    def pairs(self, pairing: Pairing, projections: Collection[str]) -> pd.DataFrame:
        """The rows of `comparison.pairs` about one pair and some projections, in every basis."""
        rows = rows_of(pairing, self.comparison.pairs)
        return rows[rows.projection.isin(projections)]

    def sites(self, adapter: Adapter, projections: Collection[str]) -> pd.DataFrame:
        """The rows of `comparison.sites` about one adapter and some projections, in every basis."""
        sites = self.comparison.sites
        of_adapter = (sites.arm == adapter.name) & (sites.step.fillna(-1) == _step(adapter))
        return sites[of_adapter & sites.projection.isin(projections)]

    def write(self, folder: Path) -> None:
        """Write a Parquet file for each table that has rows."""
        tables = {PHI: self.phi, PAIRS: self.comparison.pairs, SITES: self.comparison.sites, EXCESS: self.excess}
        tables |= {MERGE: self.merge, LOSSES: self.losses, AMPLIFICATION: self.amplification}
        for name, table in tables.items():
            if len(table):
                table.to_parquet(folder / name, index=False)


def _step(adapter: Adapter) -> int:
    """−1 for an adapter outside of a run, as a missing step is filled with."""
    return adapter.origin.step if adapter.origin else -1


def _ranks(pairing: Pairing) -> pd.DataFrame:
    """The ranks of both adapters, by layer and projection."""
    sites = pairing.left.sites.keys() & pairing.right.sites.keys()
    rows = [
        (site.layer, site.projection, pairing.left.sites[site].rank, pairing.right.sites[site].rank) for site in sites
    ]
    return pd.DataFrame(rows, columns=[*CELL[:2], "rank_left", "rank_right"]).set_index(CELL[:2])
