"""What left and right share beyond their control pair, on average over sites, with the seed as the unit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deltaw.maths.seeds import OverSeeds, holm, over_seeds

ENOUGH = 3  # seeds for a verdict
LEVEL = 0.05  # probability of any false verdict in an analysis
TESTED = ("first", "corner")  # φ(1, 1) and φ of the whole spans
SEEDS = ["seed_left", "seed_right"]


@dataclass(frozen=True)
class Excess:
    """One measure in one basis, minus chance; means over sites and seeds. None without shadows.

    Attributes:
        basis: a name in `deltaw.analysis.bases.BASES`.
        measure: a name in `deltaw.analysis.excess.MEASURES`.
        seeds: of the arms with an excess; of all arms where none has one.
        pair: left with right.
        control: the control pair, the floor: left's shadow with right's.
        left_shadow: left's shadow with right.
        right_shadow: left with right's shadow.
        other_seed: two seeds of left's settings, and of right's: the ceiling; None with one seed.
        excess: pair minus control.
        se: standard error of `excess` over seeds; None where a seed is in every pair.
        p: p-value of an excess above 0, for all tests of the analysis at once (Holm); None where there is no test.
    """

    basis: str
    measure: str
    seeds: int
    pair: float
    control: float | None
    left_shadow: float | None
    right_shadow: float | None
    other_seed: float | None
    excess: float | None
    se: float | None
    p: float | None

    @property
    def shown(self) -> bool:
        """Whether the excess is above 0 at the level of the analysis."""
        return self.p is not None and self.p < LEVEL


def excesses(table: pd.DataFrame) -> list[Excess]:
    """Means of a table with the columns `columns.EXCESS` over its sites and seeds, by basis and measure.

    With `ENOUGH` seeds or more, the measures in `TESTED` are tested, by Student's t with the seed as the unit. In the
    basis input there is no test beside the one in A: where B has full rank, the whole spans are the same.
    """
    by_seed = table.groupby(["basis", "measure", *SEEDS], sort=False, dropna=False)
    means = by_seed[["pair", "control", "left_shadow", "right_shadow", "other_seed", "excess"]].mean().reset_index()
    groups: dict[tuple[str, str], pd.DataFrame] = {
        (str(basis), str(measure)): rows
        for (basis, measure), rows in means.groupby(["basis", "measure"], sort=False)
        if rows.pair.notna().any()
    }
    over = {key: _over_seeds(rows.excess, rows[SEEDS]) for key, rows in groups.items()}
    bases = {basis for basis, _ in groups}
    tested = [key for key, found in over.items() if _is_tested(*key, found, bases)]
    p_values = dict(zip(tested, holm([over[key].p for key in tested]).tolist(), strict=True))
    return [_excess(*key, rows, over[key], p_values.get(key)) for key, rows in groups.items()]


def _is_tested(basis: str, measure: str, found: OverSeeds, bases: set[str]) -> bool:
    return (
        measure in TESTED
        and found.seeds >= ENOUGH
        and not np.isnan(found.p)
        and not (basis == "input" and "A" in bases)
    )


def _excess(basis: str, measure: str, rows: pd.DataFrame, found: OverSeeds, p: float | None) -> Excess:
    means = {name: _or_none(rows[name].mean()) for name in ("control", "left_shadow", "right_shadow", "other_seed")}
    pair, seeds = float(rows.pair.mean()), found.seeds or _over_seeds(rows.pair, rows[SEEDS]).seeds
    return Excess(basis, measure, seeds, pair, **means, excess=_or_none(found.mean), se=_or_none(found.se), p=p)


@dataclass(frozen=True)
class Slope:
    """How a number by layer changes from the first layer to the last.

    Attributes:
        layers: number of layers.
        beyond: what the number is beyond: "the control pair", or "chance" without shadows.
        over_seeds: the slope of a straight line, over the seeds that have a number at every layer; None where no seed
            has, and for fewer than three layers.
    """

    layers: int
    beyond: str
    over_seeds: OverSeeds | None


def depth_of(table: pd.DataFrame, basis: str) -> Slope:
    """The slope over depth of φ of the whole spans beyond the control pair, or beyond chance without shadows."""
    rows, value, beyond = _of_corner(table, basis)
    rows = rows.dropna(subset=value)
    layers = np.unique(rows.layer)
    means = rows.groupby([*SEEDS, "layer"], dropna=False)[value].mean().unstack()
    if len(layers) < 3 or means.isna().any(axis=1).all():
        return Slope(len(layers), beyond, None)
    depth = np.linspace(-0.5, 0.5, len(layers))  # in shares of the whole depth
    slopes = pd.Series(means.to_numpy() @ depth / (depth @ depth), means.index)
    return Slope(len(layers), beyond, _over_seeds(slopes, slopes.index.to_frame()))


@dataclass(frozen=True)
class Contrast:
    """The first of two projections minus the second, in φ of the whole spans, on average over layers.

    Attributes:
        first, second: the projections.
        beyond: what φ is beyond: "the control pair", or "chance" without shadows.
        pair: of left and right, minus chance.
        control: of the control pair, minus chance; None without shadows.
        over_seeds: of φ beyond `beyond`, over the seeds.
    """

    first: str
    second: str
    beyond: str
    pair: float
    control: float | None
    over_seeds: OverSeeds


def contrast_of(table: pd.DataFrame, basis: str, first: str, second: str) -> Contrast | None:
    """The first projection against the second; None where no seed has a number for both, or both have one A."""
    rows, value, beyond = _of_corner(table, basis)
    if not {first, second} <= set(rows.projection):  # both have one A
        return None
    means = rows.groupby([*SEEDS, "projection"], dropna=False)[["pair", "control", "excess"]].mean().unstack()
    difference = {name: means[name, first] - means[name, second] for name in ("pair", "control", "excess")}
    pair, control = (difference[name].mean() for name in ("pair", "control"))
    if difference[value].isna().all():
        return None
    over = _over_seeds(difference[value], difference[value].index.to_frame())
    return Contrast(first, second, beyond, float(pair), _or_none(control), over)


def _of_corner(table: pd.DataFrame, basis: str) -> tuple[pd.DataFrame, str, str]:
    """The rows on the whole spans in one basis, the column to use, and what it is beyond."""
    rows = table[(table.basis == basis) & (table.measure == "corner")]
    return (rows, "excess", "the control pair") if rows.excess.notna().any() else (rows, "pair", "chance")


def _over_seeds(values: "pd.Series[float]", seeds: pd.DataFrame) -> OverSeeds:
    """The mean of one value for each two seeds; outside of a run there is one pair, of one unknown seed."""
    return over_seeds(seeds.fillna(0).to_numpy(dtype=int), values.to_numpy(dtype=float))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
