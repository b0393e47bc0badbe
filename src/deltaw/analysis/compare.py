"""Compare pairs of adapters at every site: φ in every cell, what each pair shares, and what each adapter is."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from deltaw.analysis.bases import choose_bases
from deltaw.analysis.comparable import base_warning, check_comparable
from deltaw.analysis.phi_table import PhiGrid, phi_table
from deltaw.analysis.remarks import remarks_of
from deltaw.analysis.site import measure_site
from deltaw.analysis.tables import pair_row, pairs_table, phi_grid, site_rows
from deltaw.run.adapter import Adapter, Site
from deltaw.run.tensors import Buffers

RARE = 0.01  # probability that random subspaces alone give k_star a direction at any site of a basis

MOST_AT_ONCE = 8  # sites in memory: each has its own factors

log = logging.getLogger(__name__)


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
        remarks: what the reader should know of these adapters, a sentence each.
    """

    phi: pd.DataFrame
    pairs: pd.DataFrame
    sites: pd.DataFrame
    remarks: list[str]


@dataclass(frozen=True)
class SiteRows:
    """Rows of the three tables, from one site or several; each grid becomes a row per cell."""

    grids: list[PhiGrid]
    pairs: list[dict[str, object]]
    sites: list[dict[str, object]]

    def extend(self, other: "SiteRows") -> None:
        """Append the rows of `other`."""
        self.grids.extend(other.grids)
        self.pairs.extend(other.pairs)
        self.sites.extend(other.sites)


def compare(left: Adapter, right: Adapter, basis: str = "all", device: str = "cpu") -> Comparison:
    """φ between two adapters of one base, at every site and for every pair of sizes, beside random subspaces.

    Args:
        left, right: `i` counts the directions of the left one, `j` of the right one.
        basis: "A", "update", "input", "output", or "all" for every basis that both adapters have.
        device: device that multiplies the factors, "cpu" or "cuda".

    Raises:
        UserError: the sites or their widths differ, the runs recorded two different bases, or an adapter lacks the
            basis.
    """
    return compare_all([Pairing(left, right)], [basis], device)


def compare_all(pairings: Sequence[Pairing], bases: Collection[str], device: str = "cpu") -> Comparison:
    """Compare several pairs with the same sites; each adapter is read once, and each pair is compared once.

    Two pairings of the same adapters have cells if one of them has. Arguments and errors as for `compare`.
    """
    pairings = _unique(pairings)
    for pairing in pairings:
        check_comparable(pairing.left, pairing.right)
    warnings = _warn(pairings)
    adapters = list({_key(arm): arm for pairing in pairings for arm in (pairing.left, pairing.right)}.values())
    chosen, missing = choose_bases(adapters, bases)
    compare_site = partial(
        _compare_site, pairings=pairings, adapters=adapters, bases=chosen, device=device, buffers=Buffers()
    )
    rows = SiteRows([], [], [])
    for site in _in_threads(compare_site, list(adapters[0].sites), device):
        rows.extend(site)
    pairs, sites = pairs_table(rows.pairs), pd.DataFrame(rows.sites).astype({"step": "Int64"})
    remarks = [*warnings, *missing, *remarks_of(adapters, pairs, sites)]
    return Comparison(phi_table(rows.grids), pairs, sites, remarks)


def concatenate(one: Comparison, other: Comparison) -> Comparison:
    """The tables of two comparisons, one below the other; an adapter that both describe has its rows once."""
    sites = pd.concat([one.sites, other.sites], ignore_index=True)
    return Comparison(
        phi=pd.concat([table for table in (one.phi, other.phi) if len(table)] or [one.phi], ignore_index=True),
        pairs=pd.concat([one.pairs, other.pairs], ignore_index=True),
        sites=sites[~sites.duplicated(["arm", "step", "layer", "projection", "basis"])].reset_index(drop=True),
        remarks=list(dict.fromkeys([*one.remarks, *other.remarks])),
    )


def _unique(pairings: Sequence[Pairing]) -> list[Pairing]:
    unique: dict[tuple[tuple[str, Path], tuple[str, Path]], Pairing] = {}
    for pairing in pairings:
        key = _key(pairing.left), _key(pairing.right)
        unique[key] = replace(pairing, cells=pairing.cells or (key in unique and unique[key].cells))
    return list(unique.values())


def _warn(pairings: Sequence[Pairing]) -> list[str]:
    """Log each warning about two names of a base once, and return them."""
    warnings = dict.fromkeys(filter(None, (base_warning(pairing.left, pairing.right) for pairing in pairings)))
    for warning in warnings:
        log.warning(warning)
    return list(warnings)


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
    site: Site, pairings: Sequence[Pairing], adapters: list[Adapter], bases: list[str], device: str, buffers: Buffers
) -> SiteRows:
    measures = measure_site(site, adapters, bases, device, buffers)
    numbers = {_key(arm): number for number, arm in enumerate(adapters)}
    level = RARE / len(adapters[0].sites)
    rows = SiteRows([], [], [row for number in range(len(adapters)) for row in site_rows(measures, number)])
    for pairing in pairings:
        pair = numbers[_key(pairing.left)], numbers[_key(pairing.right)]
        row_cosine = {"row_cosine": measures.row_cosine(*pair)}
        for basis in bases:
            rows.pairs.append(pair_row(measures, basis, *pair, level) | row_cosine)
            if pairing.cells:
                rows.grids.append(phi_grid(measures, basis, *pair))
    return rows


def _key(arm: Adapter) -> tuple[str, Path]:
    return arm.name, arm.folder
