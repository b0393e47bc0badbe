"""What left and right share beyond their control pair, at every site and seed.

A claim about what was learned is this excess over the control pair, with the seed as its unit: the sites of one seed
are not independent, because layers read one another, and q and v read the same inputs.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deltaw.analysis.compare import Pairing
from deltaw.analysis.study import SeedPairs, Study

# Measure → its columns in `Comparison.pairs`, and the column of its chance; random subspaces have a k_star of 0.
MEASURES = {
    "first": ("phi_first", "null_first"),
    "row": ("phi_row", "null_row"),
    "corner": ("phi_corner", "null_corner"),
    "k_star": ("k_star", None),
}
KEYS = ["layer", "projection", "basis", "measure"]
PAIRS_OF_A_SEED = ("pair", "control", "left_shadow", "right_shadow")


def excess_of(study: Study, pairs: pd.DataFrame) -> pd.DataFrame:
    """The measures of each pair of the study minus their own chance, side by side; `columns.EXCESS` explains them.

    Args:
        study: the pairs, of all seeds.
        pairs: their rows of `Comparison.pairs`.
    """
    tables = [_of_seed(seed, pairs) for seed in study.seeds]
    other = _mean_beyond_chance(study.other_seed, pairs).rename("other_seed")
    return pd.concat(tables, ignore_index=True).merge(other.reset_index(), how="left", on=KEYS)


def _of_seed(seed: SeedPairs, pairs: pd.DataFrame) -> pd.DataFrame:
    kinds = {"pair": [seed.pair], **{kind: getattr(seed, kind) for kind in PAIRS_OF_A_SEED[1:]}}
    table = pd.DataFrame({kind: _mean_beyond_chance(pairings, pairs) for kind, pairings in kinds.items()})
    left, right = seed.seeds or (None, None)
    table = table.assign(seed_left=left, seed_right=right, excess=table.pair - table.control)
    return table.rename_axis(KEYS).reset_index().astype({"seed_left": "Int64", "seed_right": "Int64"})


def _mean_beyond_chance(pairings: Sequence[Pairing], pairs: pd.DataFrame) -> "pd.Series[float]":
    """Measures minus chance on average over several pairs, by `KEYS`."""
    rows = pd.concat([rows_of(pairing, pairs) for pairing in pairings] or [pairs[:0]])
    values = [
        rows.assign(measure=name, value=rows[column] - (rows[chance] if chance else 0))[[*KEYS, "value"]]
        for name, (column, chance) in MEASURES.items()
    ]
    return pd.concat(values).groupby(KEYS, sort=False).value.mean()


def rows_of(pairing: Pairing, pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `Comparison.pairs`, or of `Comparison.phi`, about one pair."""
    chosen = np.ones(len(pairs), dtype=bool)
    for side, adapter in (("left", pairing.left), ("right", pairing.right)):
        step = adapter.origin.step if adapter.origin else -1  # a missing step is filled with −1
        chosen &= ((pairs[side] == adapter.name) & (pairs[f"step_{side}"].fillna(-1) == step)).to_numpy()
    return pairs[chosen]
