"""What two adapters do to each other when they are added, at one site: a row of `merge.parquet`."""

from collections.abc import Sequence
from math import copysign, isnan, nan, sqrt

import numpy as np
import pandas as pd

from deltaw.analysis import columns
from deltaw.analysis.site import SiteMeasures
from deltaw.analysis.tables import pair_key
from deltaw.maths.merge import Products, deviation, products


def merge_row(measures: SiteMeasures, one: int, other: int) -> dict[str, object]:
    """The columns of `columns.MERGE` for two adapters, known by their numbers; B of both was read."""
    read, written = measures.measured["input"], measures.measured["output"]
    values = [read.directions[number].values for number in (one, other)]
    unit = max((float(found[0]) for found in values if len(found)), default=1.0)  # so that fourth powers stay finite
    inputs, outputs = (side.stack.cosines(side.directions[one], side.directions[other]) for side in (read, written))
    sign = copysign(1, measures.factors[one].scale * measures.factors[other].scale)  # the values are those of |scale|
    found = products(values[0] / unit, values[1] / unit, inputs, sign * outputs)
    lora = measures.adapters[one].sites[measures.site]
    key = vars(pair_key(measures, "", one, other))
    return {name: key[name] for name in columns.MERGE if name in key} | {
        "norm_left": unit * sqrt(found.one),
        "norm_right": unit * sqrt(found.other),
        "norm_ratio": found.norm_ratio,
        "cosine": found.cosine,
        "random_sd": 1 / sqrt(lora.d_in * lora.d_out),
        "rank_left": found.ranks[0],
        "rank_right": found.ranks[1],
        "overlap_input": found.overlap_input,
        "chance_input": 1 / lora.d_in,
        "sd_input": _deviation(lora.d_in, found),
        "overlap_output": found.overlap_output,
        "chance_output": 1 / lora.d_out,
        "sd_output": _deviation(lora.d_out, found),
        "effect_on_left": found.effects[0],
        "effect_on_right": found.effects[1],
    }


def merge_table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """The rows as a table with the columns `columns.MERGE`."""
    return pd.DataFrame(rows, columns=list(columns.MERGE)).astype({"step_left": "Int64", "step_right": "Int64"})


def over_sites(rows: pd.DataFrame) -> Products:
    """The inner products of two whole adapters, from the rows of one pair; a site where ΔW is 0 adds nothing.

    The unit of both is the largest norm of a row.
    """
    norms = rows[["norm_left", "norm_right"]]
    left, right = (norms / (norms.to_numpy().max() or 1.0)).to_numpy().T
    one, other = left**2, right**2
    parts = [
        rows.cosine * left * right,
        one,
        other,
        rows.overlap_input * one * other,
        rows.overlap_output * one * other,
        one**2 / rows.rank_left,
        other**2 / rows.rank_right,
    ]
    return Products(*(float(np.nansum(part)) for part in parts))


def _deviation(d: int, found: Products) -> float:
    return nan if any(map(isnan, found.ranks)) else deviation(d, *found.ranks)
