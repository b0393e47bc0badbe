"""The exhibits of one analysis: the pairs and tables that they need, and how each is drawn from the tables."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from deltaw.analysis.against_base import RANDOM, against_base
from deltaw.analysis.compare import Comparison, Pairing, compare_all, gaussian_cells, joined
from deltaw.analysis.output import AMPLIFICATION, LOSSES, PAIRS, PHI, SITES
from deltaw.analysis.pairs import Subject
from deltaw.config.schema import names_in
from deltaw.errors import UserError
from deltaw.exhibit.picture import Picture
from deltaw.model.names import ALL_LINEAR, projection_of
from deltaw.run.adapter import Adapter, Site

GRIDS = ("fig3", "fig4", "fig6", "fig7", "fig8")  # of φ: drawn on the paper's scale, and in times chance
EXHIBITS = (*GRIDS, "table6", "table7", "evolution")
SEEDS = ("fig4", "fig7")
AGAINST_BASE = ("fig8", "table7")


@dataclass(frozen=True)
class Tables:
    """All that exhibits and summary are made from.

    Attributes:
        phi: the cells of `comparison`, and those of arms against W and of two Gaussian matrices.
        comparison: of left and right, of left and the controls of right, and of what exhibits need besides.
        losses: a row per arm of the runs: see `losses_of`.
        amplification: a row per arm and projection at one layer: see `against_base`.
    """

    phi: pd.DataFrame
    comparison: Comparison
    losses: pd.DataFrame
    amplification: pd.DataFrame

    def cells(self, pairing: Pairing, basis: str, projections: Collection[str]) -> pd.DataFrame:
        """φ of one pair in one basis, at the sites of some projections, in the order of these."""
        phi = self.phi[(self.phi.left == pairing.left.name) & (self.phi.right == pairing.right.name)]
        phi = phi[phi.basis == basis]
        return pd.concat([phi[phi.projection == projection] for projection in projections])

    def pairs(self, pairing: Pairing, projections: Collection[str]) -> pd.DataFrame:
        """What two adapters share, at the sites of some projections, in every basis."""
        pairs, sides = self.comparison.pairs, {"left": pairing.left, "right": pairing.right}
        chosen = pairs.projection.isin(projections)
        for side, adapter in sides.items():
            chosen &= (pairs[side] == adapter.name) & (pairs[f"step_{side}"].fillna(-1) == _step(adapter))
        return pairs[chosen]

    def spectra(self, adapter: Adapter, projections: Collection[str]) -> pd.DataFrame:
        """What one adapter is, at the sites of some projections, in every basis."""
        sites = self.comparison.sites
        own = (sites.arm == adapter.name) & (sites.step.fillna(-1) == _step(adapter))
        return sites[own & sites.projection.isin(projections)]

    def write(self, folder: Path) -> None:
        """A Parquet file for each table that has rows."""
        tables = {PHI: self.phi, PAIRS: self.comparison.pairs, SITES: self.comparison.sites}
        for name, table in (tables | {LOSSES: self.losses, AMPLIFICATION: self.amplification}).items():
            if len(table):
                table.to_parquet(folder / name, index=False)


class Family:
    """What was asked for of one subject.

    Attributes:
        layers: that figures of several layers show.
        middle: the layer that the others show.
        basis: that the figures draw.
        projections: of those asked for, the ones that are adapted somewhere.
        left_out: of what was asked for, what cannot be made, and why.

    Raises:
        UserError: an exhibit that was named needs what the subject does not have, or no layer has these projections.
    """

    def __init__(self, subject: Subject, cfg: DictConfig):
        self.subject, self.cfg = subject, cfg
        self.basis = "A" if cfg.basis == "all" else cfg.basis
        adapted = pd.DataFrame([(site.layer, site.projection) for site in subject.left.sites])
        adapted.columns = ["layer", "projection"]
        wanted, present = names_in(cfg.projections), list(dict.fromkeys(adapted.projection))
        self.left_out: list[str] = []
        if ALL_LINEAR in wanted:
            self.projections = self._together(adapted)
        else:
            self.projections = [found for name in wanted for found in present if _is_called(found, name)]
            missing = [name for name in wanted if not any(_is_called(found, name) for found in present)]
            self.left_out = [f"projections: {name} is adapted nowhere" for name in missing]
        if not self.projections:
            raise UserError(f"projections={wanted}: the adapters have {sorted(set(adapted.projection))}")
        adapted = adapted[adapted.projection.isin(self.projections)]
        self.layers = layers_to_draw(adapted, list(cfg.layers) if cfg.layers else None)
        counts = adapted.layer.value_counts()
        complete = sorted(int(layer) for layer in counts.index[counts == len(self.projections)])
        self.middle = cfg.layers[0] if cfg.layers else complete[(len(complete) - 1) // 2]
        self.pairings: dict[str, list[Pairing]] = {}
        asked = names_in(cfg.exhibits)
        for exhibit in EXHIBITS if "all" in asked else asked:
            try:
                self.pairings[exhibit] = self._needed(exhibit)
            except UserError as error:
                if exhibit in asked:
                    raise
                self.left_out.append(f"{exhibit} is left out: {error}")

    def _together(self, adapted: pd.DataFrame) -> list[str]:
        """The projections that most layers have: q, k, v and o first, then the others. The rest is left out."""
        of_layer = Counter(frozenset(layer.projection) for _, layer in adapted[adapted.layer > 0].groupby("layer"))
        commonest = max(of_layer, key=of_layer.__getitem__, default=frozenset())
        if rest := sorted(set(adapted.projection) - commonest):
            self.left_out.append(f"projections: {rest} are not in all of the layers that are compared")
        return sorted(commonest, key=_attention_first)

    def tables(self) -> Tables:
        """All that the exhibits and the summary are made from."""
        subject, cfg = self.subject, self.cfg
        pairings = [subject.pairing, *subject.controls(), *(p for needed in self.pairings.values() for p in needed)]
        comparison = compare_all([pairing for pairing in pairings if pairing.drawn], [cfg.basis], cfg.device)
        for side in (subject.left, subject.right):  # snapshots by themselves: there may be many of them
            if steps := [pairing for pairing in pairings if not pairing.drawn and _is_same_arm(pairing.left, side)]:
                comparison = joined(comparison, compare_all(steps, [cfg.basis], cfg.device))
        phi, rows = [comparison.phi], []
        if "fig4" in self.pairings:
            lora = subject.right.sites[self._middle_sites()[0]]
            phi.append(gaussian_cells(lora.rank, lora.d_out if self.basis == "output" else lora.d_in))
        if {*AGAINST_BASE} & self.pairings.keys():
            for site in self._middle_sites():
                cells, row = against_base(site, subject.weight(site), subject.ranks(), cfg.device)
                phi.append(cells)
                rows.append(row)
        amplification = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
        return Tables(pd.concat(phi, ignore_index=True), comparison, subject.losses, amplification)

    def record(self, tables: Tables) -> dict[str, Any]:
        """What the tables hold, for `tables.json`."""
        pairs = tables.comparison.pairs
        named = pairs[["left", "right", "step_left", "step_right"]].drop_duplicates().astype(object)
        sides = (self.subject.left, self.subject.right)
        return {
            "left": _source(sides[0]),
            "right": _source(sides[1]),
            "pairs": named.where(named.notna(), None).to_dict("records"),
            "bases": list(dict.fromkeys(pairs.basis)),
            "exhibits": list(self.pairings),
            "left_out": self.left_out,
            "layers": self.layers,
            "middle": self.middle,
            "projections": self.projections,
            "remarks": tables.comparison.remarks,
        }

    def pictures(self, tables: Tables) -> Iterator[Picture]:
        """Every exhibit; a grid of φ in two variants."""
        for exhibit in self.pairings:
            contents = self._contents(exhibit, tables)
            yield Picture(exhibit, contents)
            if exhibit in GRIDS:
                yield Picture(exhibit, contents, times_chance=True)

    def _contents(self, exhibit: str, tables: Tables) -> dict[str, Any]:
        """What the `draw` of an exhibit takes."""
        match exhibit:
            case "fig3":
                return {"cells": self._cells(tables, self.subject.pairing, [self.middle]), "layer": self.middle}
            case "fig4":
                cells = self._cells(tables, self.pairings["fig4"][0], [self.middle])
                return {"cells": cells, "random": tables.phi[tables.phi.projection == RANDOM], "layer": self.middle}
            case "fig6":
                return {"cells": self._cells(tables, self.subject.pairing, self.layers), "layers": self.layers}
            case "fig7":
                return {"cells": self._cells(tables, self.pairings["fig7"][0], self.layers), "layers": self.layers}
            case "fig8":
                return {"panels": self._against_W(tables.phi), "layer": self.middle}
            case "table6":
                return {"losses": tables.losses}
            case "table7":
                return {"amplification": tables.amplification}
        pairs = tables.comparison.pairs
        of_one_arm = (pairs.left == pairs.right) & (pairs.step_left != pairs.step_right)
        return {"pairs": pairs[of_one_arm & pairs.projection.isin(self.projections) & (pairs.basis == self.basis)]}

    def _cells(self, tables: Tables, pairing: Pairing, layers: list[int]) -> pd.DataFrame:
        cells = tables.cells(pairing, self.basis, self.projections)
        return cells[cells.layer.isin(layers)]

    def _against_W(self, phi: pd.DataFrame) -> dict[str, pd.DataFrame]:  # noqa: N802
        """The panels of Figure 8."""
        first = self._middle_sites()[0].projection
        W = phi[(phi.left == "W") & (phi.projection == first)]
        arms = {label: W[W.right == arm] for arm, label in self._largest_ranks()}
        return arms | {RANDOM: W[W.right == RANDOM]}

    def _needed(self, exhibit: str) -> list[Pairing]:
        """The pairs that an exhibit needs besides left and right."""
        if exhibit in SEEDS:
            return [self.subject.two_seeds()]
        if exhibit == "evolution":
            return self.subject.over_time()
        if exhibit in AGAINST_BASE:
            for site in self._middle_sites():
                self.subject.find_weight(site)
            if magnitude := [arm.name for arm in self.subject.ranks() if arm.direction_only]:
                raise UserError(f"{magnitude} have a magnitude besides B A (DoRA): they cannot be measured against W")
        if exhibit == "table6" and not len(self.subject.losses):
            raise UserError(
                f"validation losses are recorded in runs, and of {self.subject.left.name} and "
                f"{self.subject.right.name} there are none"
            )
        return []

    def _largest_ranks(self) -> list[tuple[str, str]]:
        """Name and label of the arms that Figure 8 shows: at most three, of the largest ranks."""
        site = self._middle_sites()[0]
        arms = self.subject.ranks()[-3:]
        ranks = [arm.sites[site].rank for arm in arms]
        by_rank = len(set(ranks)) == len(ranks)
        return [(arm.name, f"r={rank}" if by_rank else arm.name) for arm, rank in zip(arms, ranks, strict=True)]

    def _middle_sites(self) -> list[Site]:
        chosen = self.projections
        sites = [site for site in self.subject.left.sites if site.layer == self.middle and site.projection in chosen]
        return sorted(sites, key=lambda site: chosen.index(site.projection))


def layers_to_draw(table: pd.DataFrame, layers: list[int] | None = None) -> list[int]:
    """The rows of the figure: `layers`, else the first and those nearest to ⅓, ⅔ and the whole of the depth.

    Depth is counted over the layers that have all projections of the table, so that 96 of them give 1, 32, 64, 96.

    Raises:
        UserError: no layer has them all, or not one that was asked for.
    """
    projections = table.projection.unique().tolist()
    of_layer = table.groupby("layer").projection.nunique()
    present = of_layer.index[of_layer == len(projections)].tolist()
    if not projections:
        raise UserError("no layer has any of the projections asked for: choose some that the adapters adapt")
    if not present:
        raise UserError(f"no layer has all of the projections {projections}: choose fewer")
    if missing := sorted(set(layers or []) - set(present)):
        raise UserError(f"layers={layers}: the projections {projections} are all in {present}, not in {missing}")
    thirds = {present[max(round(len(present) * third / 3), 1) - 1] for third in range(4)}
    return layers or sorted(thirds)


def _is_called(projection: str, name: str) -> bool:
    """Whether q, say, means a projection that is told apart from others by its path, as in encoder-decoders."""
    return name in (projection, projection_of(projection))


def _attention_first(projection: str) -> tuple[bool, int, str]:
    """What projections are sorted by: q, k, v, o, then names."""
    letter = projection_of(projection)
    return letter not in "qkvo", "qkvo".find(letter), projection


def _step(adapter: Adapter) -> int:
    """−1 outside of a run."""
    return adapter.origin.step if adapter.origin else -1


def _is_same_arm(one: Adapter, other: Adapter) -> bool:
    ends = [(end.origin.run, end.origin.arm) for end in (one, other) if end.origin]
    return len(ends) == 2 and ends[0] == ends[1]


def _source(adapter: Adapter) -> dict[str, Any]:
    """Where a compared adapter comes from; None for what is not known outside of a run."""
    origin = adapter.origin
    return {
        "name": adapter.name,
        "folder": str(adapter.folder),
        "base": adapter.base,
        "run": str(origin.run) if origin else None,
        "arm": origin.arm if origin else None,
        "step": origin.step if origin else None,
        "base_hash": origin.base_hash if origin else None,
    }
