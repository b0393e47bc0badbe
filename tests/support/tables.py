"""Small tables as the exhibits get them, with numbers that are easy to find again."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

WIDTH = 256  # of the space that the compared directions live in


def phi(
    rank_left: int,
    rank_right: int,
    layers: list[int],
    projections: Sequence[str] = "qv",
    basis: str = "A",
    first_i: int = 1,
) -> pd.DataFrame:
    """A table in which no two cells have the same φ, and all have the same control; i counts from `first_i`."""
    index = pd.MultiIndex.from_product(
        [layers, list(projections), range(first_i, first_i + rank_left), range(1, rank_right + 1)],
        names=["layer", "projection", "i", "j"],
    )
    table = pd.DataFrame({"phi": np.linspace(0, 1, len(index))}, index=index).reset_index()
    return table.assign(
        left=f"r{rank_left}-s0",
        right=f"r{rank_right}-s1",
        step_left=150,
        step_right=150,
        basis=basis,
        rank_left=rank_left,
        rank_right=rank_right,
        null_mean=table[["i", "j"]].max(axis=1) / WIDTH,
        control=0.25,
    )


def pairs(
    ranks: list[int], layers: list[int], projections: Sequence[str] = "qv", last: int = 40, basis: str = "A"
) -> pd.DataFrame:
    """Arms of these `ranks` with snapshots at step 0, `last` / 2 and `last`: each with the last, and with the next."""
    rows = [
        {"left": f"r{rank}-s0", "layer": layer, "projection": projection, "step_left": start, "step_right": end}
        | {
            "phi_corner": 1 - (end - start) / last * 0.9,
            "phi_first": 1 - (end - start) / last,
            "null_corner": rank / WIDTH,
        }
        for rank in ranks
        for layer in layers
        for projection in projections
        for start, end in ((0, last // 2), (0, last), (last // 2, last))
    ]
    return pd.DataFrame(rows).assign(right=lambda table: table.left, basis=basis)


def losses(ends: dict[tuple[str | None, int, float], list[float]], *metrics: str) -> pd.DataFrame:
    """Arms by control, rank and learning rate, with the loss at the end of each seed; metrics are 1 − ¼ of it."""
    rows = [
        {"arm": f"r{rank}-s{seed}", "control": control, "rank": rank, "seed": seed, "lr": lr, "start": 2.5, "end": end}
        | dict.fromkeys(metrics, 1 - end / 4)
        for (control, rank, lr), seeds in ends.items()
        for seed, end in enumerate(seeds)
    ]
    return pd.DataFrame(rows).assign(variant="", unit="row" if "f1" in metrics else "token")


def amplification(ranks: list[int], layers: list[int], projections: Sequence[str] = "qv") -> pd.DataFrame:
    """Table 7 of the paper at r=4, the same for every rank, layer and projection."""
    rows = [
        {"arm": f"r{rank}-s0", "step": 150, "layer": layer, "projection": projection, "rank": rank}
        for layer in layers
        for projection in projections
        for rank in ranks
    ]
    norms = {"norm_W": 61.95, "norm_update": 6.91, "by_update": 0.32, "by_W": 21.67, "by_random": 0.019}
    return pd.DataFrame(rows).assign(**norms, by_random_closed=0.0202, factor=6.91 / 0.32)
