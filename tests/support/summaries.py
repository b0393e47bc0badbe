"""Summaries to make sentences of: of cells at the level of chance, and of runs."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from deltaw import report
from deltaw.analysis.compare import Comparison
from deltaw.analysis.excess import excess_of
from deltaw.analysis.losses import losses_of
from deltaw.analysis.merge import merge_table
from deltaw.analysis.pairs import AdapterPair
from deltaw.exhibit.measure import measure
from deltaw.exhibit.selection import Selection
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.maths.random_subspaces import k_star, random_mean, random_p, random_sd
from deltaw.report.numbers import Summary
from deltaw.run.adapter import Adapter, Lora, Site

WIDTH, RANK_LEFT, RANK_RIGHT = 64, 4, 8
SITE = Site(1, "q", "layers.0.q_proj")
SUBJECT = AdapterPair(
    Adapter("low", Path("low"), "tiny", sites={SITE: Lora(RANK_LEFT, WIDTH, WIDTH, 1.0)}),
    Adapter("high", Path("high"), "tiny", sites={SITE: Lora(RANK_RIGHT, WIDTH, WIDTH, 1.0)}),
)


def cells(layers: int = 8) -> pd.DataFrame:
    """Cells at the level of chance."""
    index = pd.MultiIndex.from_product(
        [range(1, layers + 1), ["q", "v"], range(1, RANK_LEFT + 1), range(1, RANK_RIGHT + 1)],
        names=["layer", "projection", "i", "j"],
    )
    frame = index.to_frame(index=False)
    i, j = torch.tensor(frame.i.to_numpy()), torch.tensor(frame.j.to_numpy())
    mean, sd = random_mean(i, j, WIDTH).numpy(), random_sd(i, j, WIDTH).numpy()
    frame = frame.assign(left="low", right="high", basis="A", phi=mean, null_mean=mean, null_sd=sd)
    return frame.assign(step_left=None, step_right=None)


def pair(phi: pd.DataFrame, cos2: list[float]) -> pd.DataFrame:
    """The row of each site that belongs to its cells, with these angles."""
    rows = []
    for (layer, projection), of_site in phi.groupby(["layer", "projection"]):
        row = {"left": "low", "right": "high", "layer": layer, "projection": projection, "basis": "A", "width": WIDTH}
        for name, place in (("first", (1, 1)), ("row", (1, RANK_RIGHT)), ("corner", (RANK_LEFT, RANK_RIGHT))):
            cell = of_site[(of_site.i == place[0]) & (of_site.j == place[1])].iloc[0]
            row |= {f"phi_{name}": cell.phi, f"null_{name}": cell.null_mean, f"p_{name}": cell.p_value}
        count = int(k_star(cos2, RANK_LEFT, RANK_RIGHT, WIDTH))
        row |= {"k_star": count if row["phi_first"] == row["phi_first"] else np.nan, "reason": None}
        row |= {"k_star_cos2": np.mean(cos2[:count]) if count else np.nan}
        same_A = dict.fromkeys(("A_left", "A_right"), f"{projection} of layer {layer}")
        rows.append(row | {"step_left": pd.NA, "step_right": pd.NA, "full_rank": True} | same_A)
    return pd.DataFrame(rows)


SITES = pd.DataFrame(
    {
        "arm": ["low", "high"],
        "step": pd.NA,
        "projection": ["q", "v"],
        "basis": "A",
        "same_A": ["q of layer 1", "v of layer 1"],
        "zero": False,
        "rank": [RANK_LEFT, RANK_RIGHT],
        "numerical_rank": [RANK_LEFT, RANK_RIGHT],
        "stable_rank": 2.0,
        "entropy_rank": 3.0,
        "energy_rank": 4,
        "gaps": [[0.5] * RANK_LEFT, [0.01] + [0.5] * (RANK_RIGHT - 1)],
    }
)


def summarise(
    phi: pd.DataFrame,
    cos2: list[float] | None = None,
    remarks: list[str] | None = None,
    excess: pd.DataFrame | None = None,
    amplification: pd.DataFrame | None = None,
) -> Summary:
    """Of two adapter folders with these cells, angles and remarks; `excess` and `amplification` replace theirs."""
    phi = phi.assign(p_value=random_p(phi.phi.to_numpy(), phi.i.to_numpy(), phi.j.to_numpy(), WIDTH))
    pairs = pair(phi, cos2 or [0.1] * RANK_LEFT)
    comparison = Comparison(phi, pairs, SITES, merge_table([]), remarks or [])
    table = excess_of(SUBJECT.study, pairs) if excess is None else excess
    amplification = pd.DataFrame() if amplification is None else amplification
    tables = Tables(phi, comparison, table, comparison.merge, losses_of([]), amplification)
    view = View(SUBJECT, "A", ["q", "v"], layers=[1, int(phi.layer.max())], middle=1, left_out=[])
    return report.summarise(tables, view, ["fig6"])


def summarise_run(
    left: Adapter, right: Adapter, layers: list[int], basis: str = "all", projections: Sequence[str] = "qv"
) -> Summary:
    """Of two adapters, as an analysis without exhibits measures them."""
    view = View(AdapterPair(left, right), "A", list(projections), layers, layers[0], left_out=[])
    return report.summarise(measure(Selection(view, {}, []), basis, "cpu"), view, [])


def excess_table(
    seeds: int, layers: int = 4, bases: tuple[str, ...] = ("A", "update", "input", "output")
) -> pd.DataFrame:
    """Left and right share as much as their control pair, at every site and for each two seeds: `columns.EXCESS`."""
    pairs = list(permutations(range(seeds), 2)) or [(0, 0)]
    index = pd.MultiIndex.from_product(
        [range(len(pairs)), range(1, layers + 1), ["q", "v"], bases, ["first", "row", "corner", "k_star"]],
        names=["pair", "layer", "projection", "basis", "measure"],
    )
    table = index.to_frame(index=False)
    seed_left, seed_right = np.array(pairs)[table.pair].T
    levels = {"pair": 0.2, "control": 0.2, "left_shadow": 0.1, "right_shadow": 0.1, "excess": 0.0, "other_seed": 0.6}
    return table.assign(seed_left=seed_left, seed_right=seed_right, **levels)


def raised(table: pd.DataFrame, by: np.ndarray | float) -> pd.DataFrame:
    """With more shared by left and right, in every row or as each row has it."""
    return table.assign(pair=table.pair + by, excess=table.excess + by)
