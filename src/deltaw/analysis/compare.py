"""Pairs of adapters → tables: φ in every cell of every site, what each pair shares, and what each adapter is."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from deltaw.analysis.site import BASES, SiteMeasures
from deltaw.analysis.tables import Cells, head, pair_row, pairs_table, site_rows, width_of
from deltaw.errors import UserError
from deltaw.maths.subspace import similarity
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import RunDirectory
from deltaw.run.tensors import Buffers

SAME_START = 0.3  # mean cosine of the rows of two A's: 0.5 to 1 for one start, also after training; else about 0
RARE = 0.01  # chance alone gives one of the directions that k_star counts, at any site, in fewer cases
FROZEN = 1e-2  # of ‖A − A₀‖ / ‖A₀‖: an A that has moved less has hardly been trained


MOST_AT_ONCE = 8  # sites: each has its own factors in memory

Rows = tuple[list[tuple[tuple[object, ...], Tensor, int]], list[dict[str, object]], list[dict[str, object]]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairing:
    """Two adapters to compare.

    Attributes:
        cells: whether the table of φ holds their cells; what they share is measured in any case.
        drawn: whether to measure what the layers' inputs alone give, where a run has kept them.
    """

    left: Adapter
    right: Adapter
    cells: bool = True
    drawn: bool = True


@dataclass(frozen=True)
class Comparison:
    """The tables, for every pair and basis.

    Attributes:
        phi: a row per cell: left, right (names), step_left, step_right (<NA> outside of a run), layer (from 1),
            projection, basis, i (directions of `left`, from 1), j (of `right`), phi (in [0, 1]), null_mean, null_sd,
            p_value (of random subspaces), reason (why phi is NaN, else None).
        pairs: a row per pair, site and basis: the names and steps as above, layer, projection, basis, width (of the
            space), rank_left, rank_right (numerical), phi_first φ(1, 1), phi_row φ(1, rank_right), phi_corner
            φ(rank_left, rank_right); for each of these three null_… (its mean between random subspaces), p_… (their
            probability to reach it), inputs_… and p_inputs_… (largest of 100 draws from the layer's inputs, and share
            of the draws that reach it); cos2 (of the principal angles, falling), k_star, k_star_inputs (directions
            beyond random subspaces, and beyond every draw; no verdict rests on the draws), reason (why the numbers
            are NaN, else None), row_cosine.
        sites: a row per adapter, site and basis: arm, step, layer, projection, module, basis, d_in, d_out, rank,
            numerical_rank, scale, singular_values, norm, stable_rank, entropy_rank, energy_rank, gaps, moved
            (‖A − A₀‖ / ‖A₀‖).
        remarks: what the reader should know of these adapters, a sentence each.
    """

    phi: pd.DataFrame
    pairs: pd.DataFrame
    sites: pd.DataFrame
    remarks: list[str]


def compare(left: Adapter, right: Adapter, basis: str = "all", device: str = "cpu") -> Comparison:
    """φ between two adapters of one base, at every site and for every pair of sizes, and what it is by chance.

    Args:
        left, right: `i` counts the directions of the left one, `j` of the right one.
        basis: "A", "update", "input", "output", or "all" that these adapters have.
        device: where the factors are multiplied, "cpu" or "cuda".

    Raises:
        UserError: the sites or their widths differ, the runs recorded two different bases, or the basis is not to
            be had of these adapters.
    """
    return compare_all([Pairing(left, right)], [basis], device)


def compare_all(pairings: Sequence[Pairing], bases: Collection[str], device: str = "cpu") -> Comparison:
    """As `compare`, of several pairs with the same sites; each adapter is read once, and each pair counted once."""
    unique: dict[object, Pairing] = {}
    for pairing in pairings:  # of two alike the first stays: it asks for more
        unique.setdefault((_key(pairing.left), _key(pairing.right)), pairing)
    pairings = list(unique.values())
    for pairing in pairings:
        check(pairing.left, pairing.right)
    warnings = dict.fromkeys(filter(None, (base_warning(pairing.left, pairing.right) for pairing in pairings)))
    for warning in warnings:
        log.warning(warning)
    arms = list({_key(arm): arm for pairing in pairings for arm in (pairing.left, pairing.right)}.values())
    chosen, missing = _bases(arms, bases)
    measure = partial(_measure, pairings=pairings, arms=arms, bases=chosen, device=device, buffers=Buffers())
    cells = Cells()
    pairs: list[dict[str, object]] = []
    sites: list[dict[str, object]] = []
    for cells_of_site, pairs_of_site, rows_of_site in _each(measure, list(arms[0].sites), device):
        for row in cells_of_site:
            cells.add(*row)
        pairs += pairs_of_site
        sites += rows_of_site
    tables = {
        "phi": cells.table(),
        "pairs": pairs_table(pairs),
        "sites": pd.DataFrame(sites).astype({"step": "Int64"}),
    }
    remarks = [*warnings, *missing, *_remarks(arms, tables["pairs"], tables["sites"])]
    return Comparison(**tables, remarks=remarks)


def _each(measure: Callable[[Site], Rows], sites: list[Site], device: str) -> Iterator[Rows]:
    """`measure` of every site in order, several at once, each in one thread.

    A site's matrices are small: threads within a product or a decomposition would mostly wait for each other.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST_AT_ONCE) if device == "cpu" else 1
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from tqdm(pool.map(measure, sites), desc="φ", unit="site", delay=2, total=len(sites))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error
            torch.set_num_threads(threads)


def _measure(
    site: Site, pairings: Sequence[Pairing], arms: list[Adapter], bases: list[str], device: str, buffers: Buffers
) -> Rows:
    """All rows of one site."""
    numbers = {_key(arm): number for number, arm in enumerate(arms)}
    measures = SiteMeasures(site, arms, bases, device, _inputs(pairings, site), buffers)
    cells: list[tuple[tuple[object, ...], Tensor, int]] = []
    pairs = []
    for pairing in pairings:
        one, other = numbers[_key(pairing.left)], numbers[_key(pairing.right)]
        of_pair = {"row_cosine": measures.row_cosine(one, other)}
        for basis in bases:
            pairs.append(pair_row(measures, basis, one, other, pairing.drawn, RARE / len(arms[0].sites)) | of_pair)
            if pairing.cells:
                values, width = measures.phi(basis, one, other), width_of(measures, basis, one)
                cells.append((head(measures, basis, one, other), values, width))
    return cells, pairs, [row for number in range(len(arms)) for row in site_rows(measures, number)]


def _inputs(pairings: Sequence[Pairing], site: Site) -> Tensor | None:
    """Token inputs of a module, from the run of the arm that is redrawn first, else of the other one of its pair."""
    for pairing in filter(lambda pairing: pairing.drawn, pairings):
        for arm in sorted((pairing.right, pairing.left), key=lambda arm: -arm.sites[site].rank):
            module = next(own.module for own in arm.sites if own == site)
            if arm.origin and (inputs := RunDirectory(arm.origin.run).inputs(module)) is not None:
                return inputs
    return None


def _key(arm: Adapter) -> tuple[str, Path]:
    return arm.name, arm.folder


def _bases(arms: Sequence[Adapter], asked: Collection[str]) -> tuple[list[str], list[str]]:
    """The bases to measure, and for those left out of "all" why."""
    if unknown := sorted(set(asked) - {*BASES, "all"}):
        raise UserError(f"basis={unknown}: choose from {', '.join(BASES)} or all")
    without = [arm.name for arm in arms if arm.start is None]
    reason = (
        f"The basis update, A − A₀, needs the factors before the first step, and those of {', '.join(without)} "
        "are not known: for an adapter folder give left_start= or right_start="
    )
    if "all" in asked:
        return [basis for basis in BASES if basis != "update" or not without], [reason] if without else []
    if "update" in asked and without:
        raise UserError(reason)
    return [basis for basis in BASES if basis in asked], []


def _remarks(arms: Sequence[Adapter], pairs: pd.DataFrame, sites: pd.DataFrame) -> list[str]:
    """What the tables show that changes how they are to be read."""
    remarks = [f"{arm.name}: {remark}" for arm in arms for remark in arm.remarks]
    starts = pairs.groupby(["left", "right"], sort=False).row_cosine.mean()
    for left, right in starts.index[
        (starts > SAME_START) & (starts.index.get_level_values(0) != starts.index.get_level_values(1))
    ]:
        remarks.append(
            f"Shared initialisation: the rows of A of {left} and {right} have a mean cosine of "
            f"{starts[left, right]:.2f}, as after one start; what they share says little of what they learned"
        )
    moved = sites[sites.step.fillna(-1) != 0].groupby("arm", sort=False).moved.max()
    for arm in moved.index[moved < FROZEN]:
        remarks.append(
            f"A of {arm} is frozen or nearly so, ‖A − A₀‖ / ‖A₀‖ at most {moved[arm]:.1g}: what it learned is on the "
            "output side, and on A it is its random start"
        )
    return list(dict.fromkeys(remarks))


def base_warning(left: Adapter, right: Adapter) -> str | None:
    """What is to be said where the adapters name two bases, and no run has recorded that they are one."""
    if left.base == right.base or (left.origin and right.origin):  # of two origins the hashes agree by now
        return None
    return (
        f"{left.name} names the base {left.base!r}, {right.name} names {right.base!r}: "
        "φ means something only if they are one"
    )


def check(left: Adapter, right: Adapter) -> None:
    """Refuse what cannot be compared.

    Raises:
        UserError: two bases, other sites or widths, or a start that altered the base and is not known.
    """
    hashes = [adapter.origin.base_hash[:12] if adapter.origin else None for adapter in (left, right)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise UserError(
            f"{left.name} was trained on the base {hashes[0]}…, {right.name} on {hashes[1]}…: compare arms of one base"
        )
    for adapter, other in ((left, right), (right, left)):
        if adapter.alters_base and adapter.start is None:
            raise UserError(
                f"{adapter.name} started with B₀ ≠ 0 and an altered base: its ΔW is B A − B₀ A₀; give the adapter "
                "saved before the first step by left_start= or right_start="
            )
        if extra := sorted(adapter.sites.keys() - other.sites.keys()):
            names = ", ".join(map(str, extra[:4])) + (f" and {len(extra) - 4} more" if len(extra) > 4 else "")
            raise UserError(f"{adapter.name} adapts {names}, {other.name} does not: compare adapters of the same sites")
    for site, lora in left.sites.items():
        widths = [(found.d_in, found.d_out) for found in (lora, right.sites[site])]
        if widths[0] != widths[1]:
            raise UserError(
                f"{site} maps {widths[0]} (in, out) in {left.name} and {widths[1]} in {right.name}: "
                "compare adapters of one base"
            )


def joined(one: Comparison, other: Comparison) -> Comparison:
    """The tables of two comparisons, one below the other; what both describe once."""
    sites = pd.concat([one.sites, other.sites], ignore_index=True)
    return Comparison(
        phi=pd.concat([table for table in (one.phi, other.phi) if len(table)] or [one.phi], ignore_index=True),
        pairs=pd.concat([one.pairs, other.pairs], ignore_index=True),
        sites=sites[~sites.duplicated(["arm", "step", "layer", "projection", "basis"])].reset_index(drop=True),
        remarks=list(dict.fromkeys([*one.remarks, *other.remarks])),
    )


def gaussian_cells(rank: int, width: int) -> pd.DataFrame:
    """φ of two Gaussian matrices (rank × width) as rows of `Comparison.phi`, in layer 0 at the projection "random"."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(rank, width, generator=generator, dtype=torch.float64) for _ in range(2))
    cells = Cells()
    cells.add(("gaussian", "gaussian'", None, None, 0, "random", "A"), similarity(one, other), width)
    return cells.table()
