"""Measuring all that the exhibits and the summary need."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain, combinations
from pathlib import Path

import pandas as pd

from deltaw.analysis.against_base import against_base
from deltaw.analysis.bases import width_in
from deltaw.analysis.comparable import COMMAND_START
from deltaw.analysis.compare import Comparison, Pairing, compare_all, concatenate
from deltaw.analysis.excess import excess_of, rows_of
from deltaw.analysis.phi_table import gaussian_cells
from deltaw.analysis.study import control_pairs
from deltaw.exhibit.selection import EXHIBITS, Selection
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.run.adapter import Adapter

SIDES = ("input", "output")  # the bases that tell what a ΔW reads and writes


def measure(selection: Selection, basis: str, device: str) -> Tables:
    """The tables that the selected exhibits and the summary need.

    Args:
        selection: the exhibits.
        basis: the basis of the comparisons, or "all".
        device: where the factors are multiplied, "cpu" or "cuda".
    """
    view, exhibits = selection.view, [EXHIBITS[name] for name in selection.pairings]
    comparison = _compare(selection, basis, device)
    cells, amplification = [comparison.phi], pd.DataFrame()
    if any(exhibit.needs_gaussian for exhibit in exhibits):
        cells.append(_gaussian(view))
    if any(exhibit.needs_base for exhibit in exhibits):
        of_base, amplification = _against_base(view, device)
        cells.append(of_base)
    excess = excess_of(view.subject.study, comparison.pairs)
    merge, remarks = _merge(view.subject.to_merge, comparison, device)
    comparison = replace(comparison, remarks=list(dict.fromkeys([*comparison.remarks, *remarks])))
    return Tables(pd.concat(cells, ignore_index=True), comparison, excess, merge, view.subject.losses, amplification)


def _compare(selection: Selection, basis: str, device: str) -> Comparison:
    """Left with right and their control pairs; those of the study; left with controls of right; those of the exhibits.

    The snapshots of each arm are compared by themselves: there may be many of them.
    """
    subject = selection.view.subject
    of_left_and_right = [subject.pairing, *control_pairs(subject.pairing)]
    others = [*subject.study.pairings(), *subject.controls()]
    groups: dict[object, list[Pairing]] = {None: [*of_left_and_right, *others]}
    for pairing in chain(*selection.pairings.values()):
        groups.setdefault(_arm_over_time(pairing), []).append(pairing)
    return reduce(concatenate, (compare_all(group, [basis], device, COMMAND_START) for group in groups.values()))


def _merge(adapters: Sequence[Adapter], comparison: Comparison, device: str) -> tuple[pd.DataFrame, list[str]]:
    """`columns.MERGE` of every two adapters at all sites that they share, and what is to be said of them besides.

    A DoRA has no rows: its ΔW has a magnitude besides.
    """
    tables, remarks = [comparison.merge[:0]], list[str]()
    for left, right in combinations([one for one in adapters if not one.direction_only], 2):
        pairing = Pairing(left, right, cells=False)
        measured = rows_of(pairing, comparison.merge)
        if measured.empty:
            found = compare_all([pairing], SIDES, device, COMMAND_START)
            measured, remarks = found.merge, [*remarks, *found.remarks]
        tables.append(measured)
    remarks += [f"{one.name} is a DoRA: nothing is said about merging it" for one in adapters if one.direction_only]
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True), remarks


def _arm_over_time(pairing: Pairing) -> tuple[Path, str] | None:
    """The arm whose snapshots `AdapterPair.over_time` pairs; None for other pairs."""
    arms = {(side.origin.run, side.origin.arm) if side.origin else None for side in (pairing.left, pairing.right)}
    return arms.pop() if len(arms) == 1 and not pairing.cells else None


def _gaussian(view: View) -> pd.DataFrame:
    """φ of two Gaussian matrices of the size that the right adapter has at the first site of the middle layer."""
    lora = view.subject.right.sites[view.middle_sites[0]]
    return gaussian_cells(lora.rank, width_in(view.basis, lora))


def _against_base(view: View, device: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of `against_base` for all sites of the middle layer."""
    subject = view.subject
    found = [against_base(site, subject.weight(site), subject.ranks(), device) for site in view.middle_sites]
    cells, rows = zip(*found, strict=True)
    return pd.concat(cells, ignore_index=True), pd.concat(rows, ignore_index=True)
