"""Measures of one site → rows of the tables that `deltaw.analysis.compare.Comparison` describes."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from deltaw.analysis.site import SiteMeasures
from deltaw.maths.random_subspaces import chance, k_star, random_p
from deltaw.maths.spectrum import spectrum_of
from deltaw.maths.subspace import Shared, shared
from deltaw.run.adapter import Adapter

_PAIR = ["left", "right", "step_left", "step_right", "layer", "projection", "basis"]


class Cells:
    """Collects φ of every cell, site by site, and makes one table of it at the end."""

    def __init__(self) -> None:
        self._heads: list[tuple[object, ...]] = []
        self._columns: list[NDArray[np.float64]] = []  # (i, j, mean, sd, φ) × cells
        self._reasons: list[NDArray[np.object_]] = []
        self._widths: list[int] = []

    def add(self, head: tuple[object, ...], phi: Float64[Tensor, "low high"], width: int, first: int = 1) -> None:
        """The cells of one pair at one site in one basis.

        Args:
            head: left, right, step_left, step_right, layer, projection, basis.
            phi: NaN in whole rows or columns, beyond the numerical ranks.
            width: dimension of the space.
            first: the least i to keep.
        """
        low, high = phi.shape
        self._heads.append(head)
        self._widths.append(width)
        columns = np.stack([*_grid(low, high, width), phi.numpy()])[:, first - 1 :]
        self._columns.append(columns.reshape(5, -1))
        defined = ~phi.isnan()
        ranks = int(defined.any(1).sum()), int(defined.any(0).sum())
        self._reasons.append(_reasons(ranks, low, high)[first - 1 :].reshape(-1))

    def table(self) -> pd.DataFrame:
        """As `Comparison.phi`."""
        sizes = np.array([columns.shape[1] for columns in self._columns], dtype=int)
        heads = pd.DataFrame(self._heads, columns=_PAIR).astype({"step_left": "Int64", "step_right": "Int64"})
        table = heads.take(np.repeat(np.arange(len(heads)), sizes)).reset_index(drop=True)
        i_j, (mean, sd, values) = np.split(np.concatenate([np.empty((5, 0)), *self._columns], axis=1), [2])
        i, j = i_j.astype(int)
        return table.assign(
            i=i,
            j=j,
            phi=values,
            null_mean=mean,
            null_sd=sd,
            p_value=random_p(values, i, j, np.repeat(np.array(self._widths, dtype=int), sizes)),
            reason=np.concatenate([np.empty(0, dtype=object), *self._reasons]),
        )


def pair_row(measures: SiteMeasures, basis: str, one: int, other: int, drawn: bool, level: float) -> dict[str, object]:
    """What two adapters share at one site in one basis; `drawn` asks for the null of inputs, `level` is k_star's."""
    cosines = measures.cosines(basis, one, other)
    low, high = (0, 0) if cosines is None else cosines.shape
    width = width_of(measures, basis, one)
    row = dict(zip(_PAIR, head(measures, basis, one, other), strict=True))
    row |= {"width": width, "rank_left": low, "rank_right": high}
    if cosines is None or not low or not high:
        return row | _nothing() | {"reason": _why_nothing(basis, low, high)}
    found = shared(cosines)
    null = measures.drawn(basis, one, other) if drawn else None
    row |= _levels(found, null)
    beyond = k_star(found.cos2, low, high, width, level)
    row |= {"cos2": found.cos2.tolist(), "k_star": beyond}
    row["k_star_inputs"] = np.nan if null is None else _beyond_draws(found.cos2, null.cos2)
    return row | {"reason": _why_no_k_star(low, high, width) if np.isnan(beyond) else None}


def pairs_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """As `Comparison.pairs`, of what `pair_row` gave: beside each φ what it is between random subspaces."""
    table = pd.DataFrame(rows).astype({"step_left": "Int64", "step_right": "Int64"})
    low, high, width = (table[name].to_numpy() for name in ("rank_left", "rank_right", "width"))
    for name, i, j in (("first", 1, 1), ("row", 1, high), ("corner", low, high)):
        phi = table[f"phi_{name}"].to_numpy()
        table[f"null_{name}"] = np.where(np.isnan(phi), np.nan, np.maximum(i, j) / width)
        table[f"p_{name}"] = random_p(phi, i, j, width)
    return table


def _beyond_draws(cos2: Float64[Tensor, " angles"], draws: Float64[Tensor, "draws drawn"]) -> float:
    """How many angles, from the smallest on, are smaller than the same angle of every draw, if that has one."""
    largest = torch.zeros_like(cos2)
    count = min(len(cos2), draws.shape[1])
    largest[:count] = draws.max(0).values[:count]
    return float((cos2 > largest).cumprod(0).sum())


def _levels(found: Shared, null: Shared | None) -> dict[str, float]:
    """φ(1, 1), φ(1, high) and φ(low, high), each beside what the inputs alone give."""
    levels: dict[str, float] = {}
    for name in ("first", "row", "corner"):
        phi = float(getattr(found, name))
        draws = None if null is None else getattr(null, name)
        levels[f"phi_{name}"] = phi
        levels[f"inputs_{name}"] = np.nan if draws is None else float(draws.max())
        levels[f"p_inputs_{name}"] = np.nan if draws is None else float((1 + (draws >= phi).sum()) / (1 + len(draws)))
    return levels


def _nothing() -> dict[str, object]:
    names = ("first", "row", "corner")
    undefined = {f"{kind}_{name}": np.nan for name in names for kind in ("phi", "inputs", "p_inputs")}
    return undefined | {"cos2": [], "k_star": np.nan, "k_star_inputs": np.nan}


def site_rows(measures: SiteMeasures, number: int) -> Iterator[dict[str, object]]:
    """What one adapter is at one site: a row per basis that it has."""
    adapter, site = measures.adapters[number], measures.site
    lora = adapter.sites[site]
    moved = measures.moved(number)
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
        }


def width_of(measures: SiteMeasures, basis: str, number: int) -> int:
    """Dimension of the space that the directions of a basis lie in."""
    lora = measures.adapters[number].sites[measures.site]
    return lora.d_out if basis == "output" else lora.d_in


def head(measures: SiteMeasures, basis: str, one: int, other: int) -> tuple[object, ...]:
    """What tells a pair, a site and a basis."""
    left, right, site = measures.adapters[one], measures.adapters[other], measures.site
    return left.name, right.name, step_of(left), step_of(right), site.layer, site.projection, basis


def step_of(adapter: Adapter) -> int | None:
    """None outside of a run."""
    return adapter.origin.step if adapter.origin else None


@lru_cache(maxsize=64)
def _grid(low: int, high: int, width: int) -> NDArray[np.float64]:
    """i, j, and mean and sd of random subspaces, each low × high; the last two NaN beyond the width."""
    i, j = np.meshgrid(np.arange(1, low + 1), np.arange(1, high + 1), indexing="ij")
    mean, sd = np.full((2, low, high), np.nan)
    inside = chance(min(low, width), min(high, width), width)
    mean[:width, :width], sd[:width, :width] = inside.mean.numpy(), inside.sd.numpy()
    return np.stack([i, j, mean, sd])


@lru_cache(maxsize=256)
def _reasons(ranks: tuple[int, int], low: int, high: int) -> NDArray[np.object_]:
    """Why φ is NaN; None where it is not."""
    reasons = np.full((low, high), None, dtype=object)
    reasons[:, ranks[1] :] = f"j is beyond the {ranks[1]} directions of the right adapter"
    reasons[ranks[0] :] = f"i is beyond the {ranks[0]} directions of the left adapter"
    return reasons


def _why_nothing(basis: str, low: int, high: int) -> str:
    sides = " and ".join(side for side, rank in (("left", low), ("right", high)) if not rank)
    zero = {"A": "A is 0", "update": "A has not moved"}.get(basis, "ΔW is 0")
    return f"the {sides} adapter has no direction: {zero}"


def _why_no_k_star(low: int, high: int, width: int) -> str:
    if low + high == width:
        return f"k_star: {low} and {high} directions fill ℝ^{width}, so that their angles cannot be told from chance"
    return f"k_star: of {low} and {high} directions in ℝ^{width}, {low + high - width} are shared by dimension alone"
