"""Measuring all that the exhibits and the summary need."""

from itertools import chain

import pandas as pd

from deltaw.analysis.against_base import against_base
from deltaw.analysis.bases import width_in
from deltaw.analysis.compare import Comparison, compare_all, concatenate
from deltaw.analysis.phi_table import gaussian_cells
from deltaw.exhibit.selection import EXHIBITS, Selection
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.run.adapter import Adapter


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
    return Tables(pd.concat(cells, ignore_index=True), comparison, view.subject.losses, amplification)


def _compare(selection: Selection, basis: str, device: str) -> Comparison:
    """Left with right, left with the controls of right, and the pairs of the exhibits.

    The snapshots of each arm are compared by themselves: there may be many of them.
    """
    subject = selection.view.subject
    pairings = [subject.pairing, *subject.controls(), *chain(*selection.pairings.values())]
    comparison = compare_all([pairing for pairing in pairings if pairing.input_draws], [basis], device)
    for side in (subject.left, subject.right):
        if steps := [pairing for pairing in pairings if not pairing.input_draws and _is_same_arm(pairing.left, side)]:
            comparison = concatenate(comparison, compare_all(steps, [basis], device))
    return comparison


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


def _is_same_arm(one: Adapter, other: Adapter) -> bool:
    arms = [(adapter.origin.run, adapter.origin.arm) for adapter in (one, other) if adapter.origin]
    return len(arms) == 2 and arms[0] == arms[1]
