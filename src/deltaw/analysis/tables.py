"""From the measures of a site to rows of the tables; `deltaw.analysis.columns` explains their columns."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from deltaw.analysis.bases import WITHOUT_DIRECTIONS, width_in
from deltaw.analysis.equal_factors import update_is_zero
from deltaw.analysis.phi_table import PairKey, PhiGrid
from deltaw.analysis.site import SiteMeasures
from deltaw.maths.random_subspaces import MOST_DIRECTIONS, k_star, random_p
from deltaw.maths.spectrum import spectrum_of
from deltaw.maths.subspace import shared
from deltaw.run.adapter import Adapter, Site


def phi_grid(measures: SiteMeasures, basis: str, one: int, other: int) -> PhiGrid:
    """φ of two adapters, known by their numbers, in one basis."""
    key = pair_key(measures, basis, one, other)
    return PhiGrid(key, measures.phi(basis, one, other), _width(measures, basis, one))


def pair_key(measures: SiteMeasures, basis: str, one: int, other: int) -> PairKey:
    """Two adapters, known by their numbers, in one basis."""
    left, right, site = measures.adapters[one], measures.adapters[other], measures.site
    return PairKey(left.name, right.name, step_of(left), step_of(right), site.layer, site.projection, basis)


def pair_row(measures: SiteMeasures, basis: str, one: int, other: int, level: float) -> dict[str, object]:
    """What two adapters share at one site in one basis: the columns of `columns.PAIRS` that one site tells.

    Args:
        one, other: numbers of the adapters.
        level: probability of a false direction, for `k_star`.
    """
    cosines = measures.cosines(basis, one, other)
    low, high = (0, 0) if cosines is None else cosines.shape
    width = _width(measures, basis, one)
    row = vars(pair_key(measures, basis, one, other)) | {"width": width, "rank_left": low, "rank_right": high}
    if cosines is None or not low or not high:
        undefined = dict.fromkeys(("phi_first", "phi_row", "phi_corner"), np.nan)
        counts = {"cos2": [], "k_star": np.nan, "k_star_cos2": np.nan}
        return row | undefined | counts | {"reason": _why_undefined(basis, low, high)}
    found = shared(cosines)
    beyond = k_star(found.cos2, low, high, width, level)
    counted = found.cos2[: int(np.nan_to_num(beyond))]
    return row | {
        "phi_first": float(found.first),
        "phi_row": float(found.row),
        "phi_corner": float(found.corner),
        "cos2": found.cos2.tolist(),
        "k_star": beyond,
        "k_star_cos2": float(counted.mean()),  # NaN where none is counted
        "reason": _why_no_k_star(low, high, width) if np.isnan(beyond) else None,
    }


def pairs_table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """The rows with φ between random subspaces, and what repeats another row; the columns are `columns.PAIRS`.

    Args:
        rows: of `pair_row`, with what a pair has in every basis.
    """
    table = pd.DataFrame(rows).astype({"step_left": "Int64", "step_right": "Int64"})
    low, high, width = (table[name].to_numpy() for name in ("rank_left", "rank_right", "width"))
    for name, i, j in (("first", 1, 1), ("row", 1, high), ("corner", low, high)):
        phi = table[f"phi_{name}"].to_numpy()
        table[f"null_{name}"] = np.where(np.isnan(phi), np.nan, np.maximum(i, j) / width)
        table[f"p_{name}"] = random_p(phi, i, j, width)
    return table


def _why_undefined(basis: str, low: int, high: int) -> str:
    sides = " and ".join(side for side, rank in (("left", low), ("right", high)) if not rank)
    return f"the {sides} adapter has no direction: {WITHOUT_DIRECTIONS[basis]}"


def _why_no_k_star(low: int, high: int, width: int) -> str:
    if low + high < width:
        return f"k_star: chance is computed for at most {MOST_DIRECTIONS} directions, and both adapters have more"
    if low + high == width:
        return f"k_star: {low} and {high} directions fill ℝ^{width}, so that their angles cannot be told from chance"
    return f"k_star: of {low} and {high} directions in ℝ^{width}, {low + high - width} are shared by dimension alone"


def site_rows(measures: SiteMeasures, number: int, same_A: Site) -> Iterator[dict[str, object]]:
    """One adapter, known by its number, at one site: a row per basis; the columns are `columns.SITES`.

    Args:
        same_A: the first site with the same A.
    """
    adapter, site = measures.adapters[number], measures.site
    lora = adapter.sites[site]
    moved, zero = measures.moved(number), update_is_zero(adapter, site)
    for basis in measures.bases:
        if not (found := measures.directions(basis, number)):
            continue
        spectrum = spectrum_of(found.values)
        yield {
            "arm": adapter.name,
            "step": step_of(adapter),
            "layer": site.layer,
            "projection": site.projection,
            "module": site.module,
            "basis": basis,
            "d_in": lora.d_in,
            "d_out": lora.d_out,
            "rank": lora.rank,
            "numerical_rank": len(found.values),
            "scale": lora.scale,
            "singular_values": found.values.tolist(),
            "norm": spectrum.norm,
            "stable_rank": spectrum.stable_rank,
            "entropy_rank": spectrum.entropy_rank,
            "energy_rank": spectrum.energy_rank,
            "gaps": spectrum.gaps.tolist(),
            "moved": np.nan if moved is None else moved,
            "same_A": str(same_A),
            "zero": zero,
        }


def step_of(adapter: Adapter) -> int | None:
    """None outside of a run."""
    return adapter.origin.step if adapter.origin else None


def _width(measures: SiteMeasures, basis: str, number: int) -> int:
    return width_in(basis, measures.adapters[number].sites[measures.site])
