"""Compare pairs of adapters at every site: φ in every cell, what each pair shares, and what each adapter is."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from deltaw.analysis.bases import choose_bases
from deltaw.analysis.comparable import PYTHON_START, at_shared_sites, check_comparable
from deltaw.analysis.equal_factors import distinct, first_sites_with_A
from deltaw.analysis.merge import merge_row, merge_table
from deltaw.analysis.phi_table import PhiGrid, phi_table
from deltaw.analysis.remarks import remarks_of
from deltaw.analysis.site import measure_site
from deltaw.analysis.tables import pair_row, pairs_table, phi_grid, site_rows
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Site, load_adapter
from deltaw.run.tensors import Buffers

RARE = 0.01  # probability that random subspaces alone give k_star a direction at any site of a basis

MOST_AT_ONCE = 8  # sites in memory: each has its own factors

REPORTED = ["phi_first", "null_first", "phi_corner", "null_corner", "k_star"]  # columns of `pairs` that a REPL shows


@dataclass(frozen=True)
class Pairing:
    """Two adapters to compare.

    Attributes:
        cells: whether the table of φ holds this pair; the table of pairs always does.
    """

    left: Adapter
    right: Adapter
    cells: bool = True


@dataclass(frozen=True)
class Comparison:
    """The tables for every pair and basis. `deltaw.analysis.columns` explains the columns.

    Attributes:
        phi: a row per pair, site, basis and cell (i, j): `columns.PHI`.
        pairs: a row per pair, site and basis: `columns.PAIRS`.
        sites: a row per adapter, site and basis: `columns.SITES`.
        merge: a row per pair and site: `columns.MERGE`; no rows where the bases asked for need no B.
        remarks: what changes the meaning of the tables, a sentence each, the gravest first.
        missing: a sentence for the basis that "all" leaves out, if it leaves out one.
    """

    phi: pd.DataFrame
    pairs: pd.DataFrame
    sites: pd.DataFrame
    merge: pd.DataFrame
    remarks: list[str]
    missing: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Means over the sites by basis, and the remarks: short, however many sites there are."""
        pairs = self.pairs[["left", "right"]].drop_duplicates().to_numpy().tolist()
        what = " with ".join(pairs[0]) if len(pairs) == 1 else f"{len(pairs)} pairs"
        lines = [f"{what} {self.about}:", self.means.to_string()]
        return "\n".join([*lines, *(f"- {remark}" for remark in self.remarks)])

    @property
    def about(self) -> str:
        """What `means` are over, and the names of all tables."""
        sites = len(self.pairs[["layer", "projection"]].drop_duplicates())
        return f"at {sites} sites (tables: phi, pairs, sites, merge), means over the sites"

    @property
    def means(self) -> pd.DataFrame:
        """What the pairs share, on average over the sites: a row per basis."""
        return pd.DataFrame({name: self._mean(name) for name in REPORTED}).round(3)

    def _mean(self, column: str) -> pd.Series:
        """The mean over the sites by basis, each finding counted once."""
        measure = column.removeprefix("phi_").removeprefix("null_")
        return distinct(self.pairs, measure).groupby("basis", sort=False)[column].mean()


@dataclass(frozen=True)
class SiteRows:
    """Rows of the four tables, from one site or several; each grid becomes a row per cell."""

    grids: list[PhiGrid]
    pairs: list[dict[str, object]]
    sites: list[dict[str, object]]
    merge: list[dict[str, object]] = field(default_factory=list)

    def extend(self, other: "SiteRows") -> None:
        """Append the rows of `other`."""
        self.grids.extend(other.grids)
        self.pairs.extend(other.pairs)
        self.sites.extend(other.sites)
        self.merge.extend(other.merge)


def opened(argument: str, given: object) -> Adapter:
    """An adapter that is given as such or as its folder.

    Raises:
        UserError: `argument` is something else, or the folder cannot be read.
    """
    if isinstance(given, str | Path):
        return load_adapter(given)
    if not isinstance(given, Adapter):
        raise UserError(f"{argument} is a {type(given).__name__}: give an adapter of load_adapter, or its folder")
    return given


def compare_all(
    pairings: Sequence[Pairing], bases: Collection[str], device: str = "cpu", give_start: str = PYTHON_START
) -> Comparison:
    """Compare several pairs at the sites that all adapters share; each adapter is read once, each pair compared once.

    Two pairings of the same adapters have cells if one of them has.

    Args:
        pairings: the first is left with right; the others, if any, are of arms beside them.
        bases: "A", "update", "input", "output", or "all" for every basis that the adapters have.
        device: device that multiplies the factors, "cpu" or "cuda".
        give_start: how the caller gives an adapter's start, for errors and remarks.

    Raises:
        UserError: two adapters share no site, have other widths at one or were recorded with two different bases, or
            one lacks a basis.
    """
    pairings = _unique(pairings)
    for pairing in pairings:
        check_comparable(pairing.left, pairing.right, give_start)
    arms = {_key(arm): arm for pairing in pairings for arm in (pairing.left, pairing.right)}
    adapters = at_shared_sites(list(arms.values()))
    first_sites = [first_sites_with_A(arm) for arm in adapters]
    chosen, missing = choose_bases(adapters, bases, give_start)
    compare_site = partial(
        _compare_site,
        pairings=pairings,
        adapters=adapters,
        first_sites=first_sites,
        bases=chosen,
        device=device,
        buffers=Buffers(),
    )
    rows = SiteRows([], [], [])
    for site in _in_threads(compare_site, list(adapters[0].sites), device):
        rows.extend(site)
    pairs, sites = pairs_table(rows.pairs), pd.DataFrame(rows.sites).astype({"step": "Int64"})
    compared = [(pairing.left, pairing.right) for pairing in pairings]
    remarks = remarks_of(compared, adapters, first_sites, pairs, sites)
    return Comparison(phi_table(rows.grids), pairs, sites, merge_table(rows.merge), remarks, missing)


def concatenate(one: Comparison, other: Comparison) -> Comparison:
    """The tables of two comparisons, one below the other; an adapter that both describe has its rows once.

    The remarks are those of the first: the other compares the same arms at other steps.
    """
    sites = pd.concat([one.sites, other.sites], ignore_index=True)
    return Comparison(
        phi=pd.concat([table for table in (one.phi, other.phi) if len(table)] or [one.phi], ignore_index=True),
        pairs=pd.concat([one.pairs, other.pairs], ignore_index=True),
        merge=pd.concat([table for table in (one.merge, other.merge) if len(table)] or [one.merge], ignore_index=True),
        sites=sites[~sites.duplicated(["arm", "step", "layer", "projection", "basis"])].reset_index(drop=True),
        remarks=one.remarks,
        missing=one.missing,
    )


def _unique(pairings: Sequence[Pairing]) -> list[Pairing]:
    unique: dict[tuple[tuple[str, Path], tuple[str, Path]], Pairing] = {}
    for pairing in pairings:
        key = _key(pairing.left), _key(pairing.right)
        unique[key] = replace(pairing, cells=pairing.cells or (key in unique and unique[key].cells))
    return list(unique.values())


def _in_threads(compare_site: Callable[[Site], SiteRows], sites: list[Site], device: str) -> Iterator[SiteRows]:
    """Compare the sites, several at once, each in one thread; return them in order.

    A site's matrices are small: threads within a product or a decomposition would mostly wait for each other.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST_AT_ONCE) if device == "cpu" else 1
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            found = pool.map(compare_site, sites)
            yield from tqdm(found, desc="φ", unit="site", delay=2, total=len(sites), disable=None)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error
            torch.set_num_threads(threads)


def _compare_site(
    site: Site,
    pairings: Sequence[Pairing],
    adapters: list[Adapter],
    first_sites: list[dict[Site, Site]],
    bases: list[str],
    device: str,
    buffers: Buffers,
) -> SiteRows:
    measures = measure_site(site, adapters, bases, device, buffers)
    numbers = {_key(arm): number for number, arm in enumerate(adapters)}
    level = RARE / len(adapters[0].sites)
    first = [sites[site] for sites in first_sites]
    rows = SiteRows([], [], [row for number, same in enumerate(first) for row in site_rows(measures, number, same)])
    for pairing in pairings:
        one, other = numbers[_key(pairing.left)], numbers[_key(pairing.right)]
        in_all_bases = {
            "row_cosine": measures.row_cosine(one, other),
            "A_left": str(first[one]),
            "A_right": str(first[other]),
            "full_rank": measures.full_rank(one) and measures.full_rank(other),
        }
        if measures.stacks.outer:
            rows.merge.append(merge_row(measures, one, other))
        for basis in bases:
            rows.pairs.append(pair_row(measures, basis, one, other, level) | in_all_bases)
            if pairing.cells:
                rows.grids.append(phi_grid(measures, basis, one, other))
    return rows


def _key(arm: Adapter) -> tuple[str, Path]:
    return arm.name, arm.folder
