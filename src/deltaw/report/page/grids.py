"""φ in every cell of every site, in two bytes a number, with what each pair shares and the spectrum of each side."""

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deltaw.analysis.bases import MEANINGS
from deltaw.analysis.columns import PAIR, TWO
from deltaw.analysis.compare import Pairing
from deltaw.analysis.excess import rows_of
from deltaw.analysis.study import control_pairs
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View

MOST_CELLS = 1_000_000  # that the page holds: five megabytes
MOST_ROWS = 2_000  # of sites of pairs without cells: a megabyte, or with ranks of 64 up to five
MOST_DIRECTIONS = 64  # of each side, where all cells are too many

LEVELS = 65_534  # of a number in two bytes; one more stands for what is no number
SMALLEST_P = 20  # −log₁₀ of the smallest p that is told from 0

Key = tuple[str, str, int, int]  # the names of a pair and their steps; −1 for no step


def grids_of(tables: Tables, view: View, pairings: Iterable[Pairing]) -> dict[str, Any]:
    """All that the page shows of the sites.

    Returns:
        pairs: left, right and their steps, and the numbers of the pairs that are the control of this one.
        sites: of each pair, basis, layer and projection the levels, the principal angles, and where its cells begin in
            `phi` and `p`: rows × columns of them. Not every pair has cells.
        spectra: singular values of each side.
        phi, p: see `_bytes`. −log₁₀ p is divided by `SMALLEST_P`.
        left_out: what the page leaves out of the tables, in sentences; "" for nothing.
    """
    compared = tables.comparison
    cells, cells_left_out = _fitting(compared.phi, view)
    shown, pairs_left_out = _shown(compared.pairs, compared.phi)
    sites, order = _sites(compared.pairs, shown, cells)
    p = -np.log10(np.clip(order.p_value.to_numpy(dtype=float), 10.0**-SMALLEST_P, 1.0)) / SMALLEST_P
    return {
        "pairs": _pairs(shown, pairings),
        "bases": {basis: MEANINGS[basis] for basis in compared.pairs.basis.unique()},
        "sites": sites,
        "spectra": _spectra(compared.sites, shown),
        "phi": _bytes(order.phi.to_numpy(dtype=float)),
        "p": _bytes(p),
        "smallest_p": SMALLEST_P,
        "left_out": " ".join(filter(None, [cells_left_out, pairs_left_out])),
    }


def _fitting(phi: pd.DataFrame, view: View) -> tuple[pd.DataFrame, str]:
    """The cells that fit into the page, and what was left out of them; the compared pair goes last."""
    pairing = view.subject.pairing
    kept = [pairing, *control_pairs(pairing)]
    steps: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = [
        (
            f"sizes above {MOST_DIRECTIONS}",
            lambda all_: all_[(all_.i <= MOST_DIRECTIONS) & (all_.j <= MOST_DIRECTIONS)],
        ),
        (
            "pairs that are neither compared nor the control pair",
            lambda all_: pd.concat([rows_of(one, all_) for one in kept]),
        ),
        ("layers that the figures leave out", lambda all_: all_[all_.layer.isin(view.layers)]),
        ("the control pair", lambda all_: rows_of(pairing, all_)),
    ]
    left_out: list[str] = []
    for what, part in steps:
        if len(phi) <= MOST_CELLS:
            break
        fewer = part(phi)
        left_out += [what] if len(fewer) < len(phi) else []
        phi = fewer
    cells = f"The page has no cells of {', '.join(left_out)}: {len(phi):,} cells are here, all are in phi.parquet."
    return phi, cells if left_out else ""


def _shown(pairs: pd.DataFrame, phi: pd.DataFrame) -> tuple[list[Key], str]:
    """The pairs with cells, then as many others as the page has room for; and what it leaves out."""
    with_cells = dict.fromkeys(map(_key, _rows(phi[TWO].drop_duplicates())))
    shown, room = list(with_cells), MOST_ROWS
    counts = Counter(map(_key, _rows(pairs[TWO])))
    for key in filter(lambda key: key not in with_cells, counts):
        room -= counts[key]
        shown += [key] if room >= 0 else []
    more = len(counts.keys() | with_cells.keys()) - len(shown)
    return shown, f"Pairs that are in pairs.parquet alone: {more}." if more else ""


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    return iter(table.itertuples())


def _key(row: Any) -> Key:
    return (row.left, row.right, _step(row.step_left), _step(row.step_right))


def _step(step: Any) -> int:
    return -1 if pd.isna(step) else int(step)


def _key_of(pairing: Pairing) -> Key:
    one, other = (side.origin.step if side.origin else -1 for side in (pairing.left, pairing.right))
    return (pairing.left.name, pairing.right.name, one, other)


def _pairs(shown: Sequence[Key], pairings: Iterable[Pairing]) -> list[dict[str, Any]]:
    number = {key: n for n, key in enumerate(shown)}
    controls = {_key_of(pairing): [_key_of(one) for one in control_pairs(pairing)] for pairing in pairings}
    return [
        {
            "left": left,
            "right": right,
            "steps": [None if step == -1 else step for step in (one, other)],
            "controls": [number[each] for each in controls.get((left, right, one, other), []) if each in number],
        }
        for left, right, one, other in shown
    ]


def _sites(pairs: pd.DataFrame, shown: Sequence[Key], cells: pd.DataFrame) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """What each pair shares at each site and in each basis; and the cells in the order of `at`."""
    number = {key: n for n, key in enumerate(shown)}
    grids: dict[tuple[object, ...], dict[str, int]] = {}
    parts, at = [], 0
    names: Any
    for names, grid in cells.groupby(list(PAIR), sort=False, dropna=False):
        left, right, one, other, layer, projection, basis = names
        rows, columns = int(grid.i.max()), int(grid.j.max())
        if rows * columns == len(grid):
            key = (left, right, _step(one), _step(other), basis, layer, projection)
            grids[key] = {"at": at, "rows": rows, "columns": columns}
            parts.append(grid)
            at += len(grid)
    sites = [
        {
            "pair": number[_key(row)],
            "basis": row.basis,
            "layer": row.layer,
            "projection": row.projection,
            "width": row.width,
            "first": row.phi_first,
            "corner": row.phi_corner,
            "p_first": row.p_first,
            "p_corner": row.p_corner,
            "null_first": row.null_first,
            "null_corner": row.null_corner,
            "k_star": row.k_star,
            "k_star_cos2": row.k_star_cos2,
            "cos2": list(map(float, row.cos2)),
            "reason": row.reason,
        }
        | grids.get((*_key(row), row.basis, row.layer, row.projection), {})
        for row in _rows(pairs.drop_duplicates(list(PAIR)))
        if _key(row) in number
    ]
    return sites, pd.concat(parts) if parts else cells[:0]


def _spectra(sites: pd.DataFrame, shown: Sequence[Key]) -> list[dict[str, Any]]:
    sides = {side for left, right, one, other in shown for side in ((left, one), (right, other))}
    return [
        {
            "arm": row.arm,
            "step": None if _step(row.step) == -1 else _step(row.step),
            "basis": row.basis,
            "layer": row.layer,
            "projection": row.projection,
            "values": list(map(float, row.singular_values)),
        }
        for row in _rows(sites)
        if (row.arm, _step(row.step)) in sides
    ]


def _bytes(shares: Sequence[float] | np.ndarray) -> str:
    """Numbers in [0, 1] as little-endian 16-bit integers up to `LEVELS`, in base64; one more is NaN."""
    values = np.where(np.isnan(shares), LEVELS + 1, np.round(np.clip(shares, 0, 1) * LEVELS))
    return base64.b64encode(np.nan_to_num(values).astype("<u2").tobytes()).decode()
