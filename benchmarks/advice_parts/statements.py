"""What the advice says of each cut and rank, beside what it costs on examples that the advice does not know."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from deltaw.advice.answer import Advice, Ship, Train
from deltaw.advice.judged import Judged, JudgedArm, judged_of, judged_rows
from deltaw.advice.recipes import Recipe, recipes_of
from deltaw.advice.ship import ship_of
from deltaw.advice.train import train_of
from deltaw.maths.shares import Estimate
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import JUDGED

MARGIN = 0.01
ADVICE_TAKES = 3  # every third judged example, by number


@dataclass(frozen=True)
class Part(RunDirectory):
    """A run as if it had judged some of its examples alone."""

    examples: frozenset[int]

    def evaluation(self) -> pd.DataFrame:
        table = super().evaluation()
        return table[(table.split != JUDGED) | table.example.isin(self.examples)]


def parts_of(run: RunDirectory) -> tuple[frozenset[int], frozenset[int]]:
    """The judged examples that the advice is made from, and those that it is checked on."""
    numbers = sorted(judged_rows(run).example.unique().tolist())
    for_advice = frozenset(numbers[::ADVICE_TAKES])
    return for_advice, frozenset(numbers) - for_advice


def losses_on(examples: frozenset[int], *runs: RunDirectory) -> Judged:
    """The losses of all arms on these examples."""
    parts = [Part(run.path, examples) for run in runs]
    return judged_of(parts, [judged_rows(part) for part in parts])


class Cost(NamedTuple):
    """Loss that something adds, as a share of the gain, with limits that are each one-sided at 95 %.

    The lower limit of a rank holds for all ranks at once, as in `deltaw.advice.answer.Rank`.
    The limits are NaN where the gain is not above 0, since no share is bounded then.
    """

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Statement:
    """What the advice says of a cut or a rank, and what the other examples say of it.

    Attributes:
        enough: whether it costs no more than the margin, by the advice; None where the advice does not say.
        known: its cost on the examples of the advice.
        found: its cost on the others.
    """

    what: str
    enough: bool | None
    known: Cost
    found: Cost

    @property
    def said(self) -> str:
        """What the advice says, in words."""
        return {True: "enough", False: "not shown", None: ""}[self.enough]

    @property
    def verdict(self) -> str:
        """At 95 %: of an 'enough' confirmed, wrong or open; of a refusal confirmed, too careful or open."""
        if self.enough is None:
            return ""
        if self.found.high <= MARGIN:
            return "confirmed" if self.enough else "too careful"
        if self.found.low > MARGIN:
            return "wrong" if self.enough else "confirmed"
        return "open"


def costs_of_cuts(ship: Ship | None) -> dict[int, Cost]:
    """By the rank cut to."""
    cuts = ship.cuts if ship else []
    return {cut.cut: Cost(1 - cut.kept, 1 - cut.kept_at_most, 1 - cut.kept_at_least) for cut in cuts}


def costs_of_ranks(train: Train | None) -> dict[int, Cost]:
    """By rank, without the reference."""
    return {
        one.rank: Cost(one.cost, one.cost_at_least, one.cost_at_most)
        for one in (train.ranks if train else [])
        if one.cost_at_least is not None and one.cost_at_most is not None
    }


def statements_of(advice: Advice, known: Judged, others: Judged) -> list[Statement]:
    """All that can be checked.

    Args:
        advice: made from `known`.
        known: losses of all arms on the examples of the advice.
        others: losses of the same arms on the other examples.
    """
    largest = max(arm.record["rank"] for arm in known.arms)
    return [
        *(on_recipe(advice.recipe, uniform(others, largest).arms, others) if advice.recipe else []),
        *(on_ranks(advice.train, others) if advice.train else []),
        *on_single_runs(known, others, largest),
    ]


def on_recipe(ship: Ship, arms: Sequence[JudgedArm], others: Judged) -> Iterator[Statement]:
    """About each cut, over the seeds."""
    known, found = costs_of_cuts(ship), costs_of_cuts(ship_of(others, arms, MARGIN))
    for cut in ship.cuts:
        if cut.cut in found:
            yield Statement(f"r={ship.rank} cut to {cut.cut}", cut.passes, known[cut.cut], found[cut.cut])


def on_ranks(said: Train, others: Judged) -> Iterator[Statement]:
    """About each rank that arms were trained at; of those above the reference, the advice does not speak."""
    known, found = costs_of_ranks(said), costs_of_ranks(train_of(others, MARGIN))
    for one in said.ranks:
        if one.rank in known and one.rank in found:
            enough = one.enough if one.rank < (said.reference or 0) else None
            yield Statement(f"r={one.rank} trained", enough, known[one.rank], found[one.rank])


def on_single_runs(known: Judged, others: Judged, rank: int) -> Iterator[Statement]:
    """About the cut that each seed by itself would ship."""
    for arm, same in zip(uniform(known, rank).arms, uniform(others, rank).arms, strict=True):
        ship = ship_of(known, [arm], MARGIN)
        found = costs_of_cuts(ship_of(others, [same], MARGIN))
        if ship and ship.ship and ship.ship.cut in found:
            cut = ship.ship.cut
            yield Statement(f"{arm.name} cut to {cut}", True, costs_of_cuts(ship)[cut], found[cut])


def uniform(judged: Judged, rank: int) -> Recipe:
    """The arms of one rank at every site."""
    return next(one for one in recipes_of(judged.task) if one.rank == rank and not ranks_by_module(one))


def ranks_by_module(recipe: Recipe) -> dict[str, int]:
    """Of a pattern; empty where the arms have none."""
    return recipe.arms[0].record.get("rank_pattern", {})


def costs_of_patterns(judged: Judged) -> Iterator[tuple[int, str, Cost]]:
    """The mean rank of each pattern, its scale in words, and its cost against uniform arms of this rank."""
    for one in recipes_of(judged.task):
        if ranks_by_module(one):
            scale = "of the uniform arm" if one.arms[0].record.get("alpha_pattern") else "alpha / rank of the site"
            yield one.rank, scale, cost_of_pattern(judged, one)


def cost_of_pattern(judged: Judged, patterned: Recipe) -> Cost:
    """Against uniform arms of its mean rank, as ranks are compared; the variance of seeds is pooled over the two."""
    flat = uniform(judged, patterned.rank)
    found = judged.ratios(patterned.uncut - flat.uncut, flat.base - flat.uncut)
    seeds = len(flat.arms)
    variances = [np.var([judged.ratios(arm.uncut).means[0] for arm in one.arms], ddof=1) for one in (patterned, flat)]
    of_seeds = np.mean(variances) / seeds * np.array([[2.0, 1.0], [1.0, 1.0]])
    estimate = Estimate(found.means, found.covariance + of_seeds, 2 * (seeds - 1))
    return Cost(estimate.share, *estimate.limits())
