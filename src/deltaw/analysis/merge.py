"""What two adapters do to each other when they are added, at one site: a row of `merge.parquet`."""

from collections.abc import Sequence
from math import nan, sqrt

import pandas as pd

from deltaw.analysis import columns
from deltaw.analysis.bases import width_in
from deltaw.analysis.site import SiteMeasures
from deltaw.analysis.tables import pair_key
from deltaw.maths.merge import Products, products
from deltaw.maths.subspace import shared


def merge_row(measures: SiteMeasures, one: int, other: int) -> dict[str, object]:
    """The columns of `columns.MERGE` for two adapters, known by their numbers; B of both was read."""
    arms = [measures.factors[number] for number in (one, other)]
    found = products(*(factor for arm in arms for factor in (arm.inner, arm.scale * arm.outer.double())))
    lora = measures.adapters[one].sites[measures.site]
    key = vars(pair_key(measures, "", one, other))
    return {name: key[name] for name in columns.MERGE if name in key} | {
        "norm_left": sqrt(found.one),
        "norm_right": sqrt(found.other),
        "norm_ratio": found.norm_ratio,
        "cosine": found.cosine,
        "random_sd": 1 / sqrt(lora.d_in * lora.d_out),
        **_overlap(measures, "input", one, other),
        **_overlap(measures, "output", one, other),
    }


def merge_table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """The rows as a table with the columns `columns.MERGE`."""
    return pd.DataFrame(rows, columns=list(columns.MERGE)).astype({"step_left": "Int64", "step_right": "Int64"})


def over_sites(rows: pd.DataFrame) -> Products:
    """The inner products of two whole adapters, from the rows of one pair; a site where ΔW is 0 adds nothing."""
    between = (rows.cosine * rows.norm_left * rows.norm_right).fillna(0.0)
    return Products(float(between.sum()), float((rows.norm_left**2).sum()), float((rows.norm_right**2).sum()))


def _overlap(measures: SiteMeasures, side: str, one: int, other: int) -> dict[str, float]:
    """φ between all directions that both ΔW use on one side, and its mean for random directions; NaN where ΔW is 0."""
    basis = measures.measured[side]
    cosines = basis.stack.cosines(basis.directions[one], basis.directions[other])
    found, chance = nan, nan
    if cosines.numel():
        width = width_in(side, measures.adapters[one].sites[measures.site])
        found, chance = float(shared(cosines).corner), max(cosines.shape) / width
    return {f"overlap_{side}": found, f"chance_{side}": chance}
