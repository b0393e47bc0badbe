"""Which rank to train next time, from arms that were trained at those ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import ceil, floor, isnan, nan

import numpy as np
from jaxtyping import Float64

from deltaw.advice.answer import Rank, Train
from deltaw.advice.command import Settling, command_of, most_judged, times_of
from deltaw.advice.judged import Judged
from deltaw.advice.learned import LEVEL
from deltaw.advice.recipes import Recipe, best, recipes_of
from deltaw.analysis.comparable import MOST_NAMED, listed
from deltaw.maths.shares import Estimate

ENOUGH = 3  # seeds of each rank
MOST_SEEDS = 32  # of each rank in a command that a user would start
_LARGE = 10**9  # degrees of freedom with which Student's t is normal


@dataclass(frozen=True, eq=False)
class _Ranks:
    """The ranks' best recipes on validation, from the smallest rank up, and the one among them that validates best.

    Where two ranks or more have seeds enough, the others are left out.
    """

    judged: Judged
    recipes: list[Recipe]
    left_out: list[Recipe]
    reference: Recipe
    lrs: dict[int, list[float]]

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the pooled variance of seeds."""
        return sum(len(one.arms) - 1 for one in self.recipes)

    @property
    def seed_variance(self) -> float:
        """Variance of an arm's judged loss over its seeds, pooled over ranks; NaN where no rank has two seeds."""
        losses = [[float(self.judged.ratios(arm.uncut).means[0]) for arm in one.arms] for one in self.recipes]
        squares = sum(float(np.var(of_seeds)) * len(of_seeds) for of_seeds in losses)
        return squares / self.freedom if self.freedom else nan

    @property
    def gain(self) -> float:
        """Mean loss of the base minus the reference's."""
        return float(self.judged.ratios(self.reference.base - self.reference.uncut).means[0])

    @property
    def level_of_each_pair(self) -> float:
        """`LEVEL` shared out over all pairs of a reference and another rank; there are two ranks or more."""
        count = len(self.recipes)
        return LEVEL / (count * (count - 1))

    def below(self) -> list[Recipe]:
        """The ranks below the reference, from the largest down."""
        return [one for one in reversed(self.recipes) if one.rank < self.reference.rank]


def train_of(judged: Judged, margin: float) -> Train | None:
    """Compare every rank with the one that validates best, each at its own best recipe on validation.

    The contrast of rank ρ with the reference R is L̄_ρ − L̄_R − margin · (b − L̄_R), with means L̄ over seeds of judged
    losses and the base's loss b. Its variance is that over seeds,

        σ² (1 / S_ρ + (1 − margin)² / S_R),

    with σ² pooled over all ranks, plus that over the judged examples of the contrast of the seeds' mean losses.
    Student's t has the Σ (S − 1) degrees of freedom of σ². The ranks below the reference are tested in fixed sequence
    from the largest down, one-sided at 5 % each.

    The reference is chosen by other examples and the same arms, so it is one whose seeds were lucky rather than not:
    costs are too high rather than too low. That is safe for what a rank costs at most. What it costs at least holds for
    all ranks at once, whichever is the reference: its level is shared out over all pairs (Bonferroni).

    Returns:
        None without an arm that has one rank at all sites and did not diverge.
    """
    ranks = _ranks_of(judged)
    if ranks is None:
        return None
    train = Train(
        reference=ranks.reference.rank,
        rank=None,
        ranks=[_row(ranks, one) for one in ranks.recipes] if ranks.gain > 0 else [],
        scales=list(dict.fromkeys(one.scale for one in recipes_of(judged.task))),
        seeds_needed=None,
        judged_needed=None,
        command=None,
        arms_of_a_seed=None,
        times=None,
        missing=None,
    )
    if missing := _missing(ranks):
        without = [replace(row, cost_at_least=None, cost_at_most=None) for row in train.ranks]
        return replace(train, ranks=without, missing=missing)
    if not train.ranks or any(row.cost_at_most is None for row in train.ranks if row.rank != train.reference):
        why = f"r={ranks.reference.rank} validates best and has no clear gain over the base, of which to take a share."
        return replace(train, ranks=[], missing=why)
    train = replace(train, ranks=_in_sequence(ranks, train.ranks, margin))
    rank = _decided(ranks, train.ranks, margin)
    return _undecided(train, ranks, margin) if rank is None else replace(train, rank=rank)


def _ranks_of(judged: Judged) -> _Ranks | None:
    arms = [arm for arm in judged.task if not arm.record.get("rank_pattern")]  # an arm with one has several ranks
    recipes = recipes_of(arms)
    ranks = sorted({one.rank for one in recipes})
    found = [one for rank in ranks if (one := best(one for one in recipes if one.rank == rank))]
    enough = [one for one in found if len(one.arms) >= ENOUGH]
    compared = enough if len(enough) > 1 else found
    left_out = [one for one in found if one not in compared]
    lrs = {rank: sorted({arm.record["lr"] for arm in arms if arm.record["rank"] == rank}) for rank in ranks}
    reference = best(compared)
    return _Ranks(judged, compared, left_out, reference, lrs) if reference else None


def _missing(ranks: _Ranks) -> str | None:
    if len(ranks.recipes) < 2:
        return (
            f"Only r={ranks.reference.rank} {_alone(ranks)}. Which rank to train takes two ranks with {ENOUGH} seeds "
            f"each: train with two arms.ranks or more, and arms.seeds={_list(range(ENOUGH))}."
        )
    if all(len(one.arms) >= ENOUGH for one in ranks.recipes):
        return None
    counts = [len(one.arms) for one in ranks.recipes]
    each = [f"r={one.rank} has {_count(len(one.arms))}" for one in ranks.recipes]
    have = f"every rank has {_count(counts[0])}" if len(set(counts)) == 1 else ", ".join(each)
    return (
        f"Which rank to train takes {ENOUGH} seeds of each rank at its best learning rate, and {have}: train with "
        f"arms.seeds={_list(range(ENOUGH))}."
    )


def _alone(ranks: _Ranks) -> str:
    """Why there is one rank to compare."""
    trained = {record["rank"] for arm in ranks.judged.arms for record in arm.run.record.arms}
    if trained == {ranks.reference.rank}:
        return "was trained"
    return "can be compared: arms that diverged, were not judged or have a rank_pattern do not count"


def _count(seeds: int) -> str:
    return f"{seeds} seed" if seeds == 1 else f"{seeds} seeds"


def _list(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _estimate(ranks: _Ranks, recipe: Recipe) -> tuple[Estimate, Float64[np.ndarray, "2 2"]]:
    """Cost of a rank and gain of the reference; and the part of their covariance that judged examples make."""
    reference = ranks.reference
    found = ranks.judged.ratios(recipe.uncut - reference.uncut, reference.base - reference.uncut)
    own, others = ranks.seed_variance / len(recipe.arms), ranks.seed_variance / len(reference.arms)
    of_seeds = np.array([[own + others, others], [others, others]])
    return Estimate(found.means, found.covariance + of_seeds, ranks.freedom), found.covariance


def _row(ranks: _Ranks, recipe: Recipe) -> Rank:
    """A rank with its limits, if they are known, and as if no rank but the reference were enough."""
    is_reference = recipe is ranks.reference
    estimate, _ = _estimate(ranks, recipe)
    at_least = nan if is_reference else estimate.limits(ranks.level_of_each_pair)[0]
    at_most = nan if is_reference else estimate.limits(LEVEL)[1]
    return Rank(
        rank=recipe.rank,
        lr=recipe.lr,
        lrs=ranks.lrs[recipe.rank],
        seeds=recipe.seeds,
        loss=float(ranks.judged.ratios(recipe.uncut).means[0]),
        cost=0.0 if is_reference else estimate.share,
        cost_at_least=None if isnan(at_least) else at_least,
        cost_at_most=None if isnan(at_most) else at_most,
        enough=is_reference,
    )


def _in_sequence(ranks: _Ranks, rows: list[Rank], margin: float) -> list[Rank]:
    """The rows with `enough` true from the reference downwards, up to the first rank whose limit is too high."""
    by_rank = {row.rank: row for row in rows}
    inside = takewhile(lambda row: _at_most(row) <= margin, (by_rank[one.rank] for one in ranks.below()))
    return list((by_rank | {row.rank: replace(row, enough=True) for row in inside}).values())


def _at_most(row: Rank) -> float:
    return nan if row.cost_at_most is None else row.cost_at_most


def _decided(ranks: _Ranks, rows: list[Rank], margin: float) -> int | None:
    """The smallest rank that is enough, if a smaller one than the reference is, or if it is shown that none is."""
    smallest = min(row.rank for row in rows if row.enough)
    next_below = next((row for row in reversed(rows) if row.rank < ranks.reference.rank), None)
    if smallest < ranks.reference.rank or next_below is None:
        return smallest
    worse = next_below.cost_at_least is not None and next_below.cost_at_least > margin
    return smallest if worse else None


def _undecided(train: Train, ranks: _Ranks, margin: float) -> Train:
    """The same, with what would probably decide about the next rank below the reference, if that costs nothing."""
    worse = {row.rank for row in train.ranks if row.cost_at_least is not None and row.cost_at_least > margin}
    compared = [one for one in ranks.recipes if one.rank <= ranks.reference.rank and one.rank not in worse]
    estimate, of_examples = _estimate(ranks, ranks.below()[0])
    contrast, delta = np.array([1, -margin]), margin * float(estimate.means[1])
    if not delta > 0:
        return train
    seeds = _seeds_needed(ranks, len(compared), margin, delta)
    count = len(ranks.judged.labels)
    half = _allowed(len(compared) * (seeds - 1), delta) / 2
    judged = max(count, ceil(count * float(contrast @ of_examples @ contrast) / half))
    train = replace(train, seeds_needed=seeds, judged_needed=judged)
    if seeds > MOST_SEEDS or judged > _most_judged(ranks):
        return train
    settling = Settling(compared, ranks.lrs, seeds, judged)
    return replace(
        train,
        command=command_of(settling),
        arms_of_a_seed=settling.arms_of_a_seed,
        times=times_of(settling, ranks.judged),
    )


def _most_judged(ranks: _Ranks) -> float:
    """Judged examples that the data can give; those of the run where it says less."""
    return max(len(ranks.judged.labels), most_judged(ranks.reference.arms[0].run))


def _seeds_needed(ranks: _Ranks, compared: int, margin: float, delta: float) -> int:
    """The least number of seeds of each rank with which their part of the variance is half of what decides."""
    variance = ranks.seed_variance * (1 + (1 - margin) ** 2)
    seeds = max(max(len(one.arms) for one in ranks.recipes), floor(2 * variance / _allowed(_LARGE, delta)))
    while variance / seeds > _allowed(compared * (seeds - 1), delta) / 2:
        seeds += 1
    return seeds


def _allowed(freedom: int, delta: float) -> float:
    """The largest variance with which a contrast of −delta is found in 80 % of cases."""
    return Estimate(np.array([-delta, 0.0]), np.zeros((2, 2)), freedom).decisive_variance(0.0)


def remarks_on(judged: Judged, train: Train | None) -> Iterator[str]:
    """What the recipes that were tried leave open, and whether the data have as many examples as it takes."""
    ranks = _ranks_of(judged)
    if ranks is None or train is None:
        return
    for one in ranks.left_out:
        yield f"r={one.rank} has {_count(len(one.arms))} of the {ENOUGH} that a rank takes, and is not compared."
    if train.seeds_needed and train.seeds_needed > MOST_SEEDS:
        yield (
            f"No command is printed, because it would take more than {MOST_SEEDS} seeds of each rank to decide which "
            "rank to train: a larger margin needs fewer."
        )
    most = _most_judged(ranks)
    if train.judged_needed and train.judged_needed > most:
        yield (
            f"No command is printed, because it would probably take more judged examples than the {most:,.0f} that the "
            "data set can give, while half of the others stay to learn, to decide which rank to train: give more data."
        )
    alone = [f"r={one.rank}" for one in ranks.recipes if len(ranks.lrs[one.rank]) == 1]
    if alone:
        yield (
            f"Only one learning rate was tried at {listed(alone, MOST_NAMED)}: another may turn the order of the "
            "ranks. Give several arms.lrs."
        )
    for one in ranks.recipes:
        lrs = ranks.lrs[one.rank]
        if len(lrs) > 1 and one.lr in (lrs[0], lrs[-1]):
            which = "smallest" if one.lr == lrs[0] else "largest"
            yield f"The best learning rate at r={one.rank}, {one.lr:g}, is the {which} that was tried: try beyond it."
    scales = {one.scale for one in recipes_of(judged.task)}
    if len(scales) == 1 and len(ranks.recipes) > 1:
        yield (
            f"Only one scale was tried, {next(iter(scales))}: scale and learning rate are part of the answer, and "
            "another arms.scaling may turn the order of the ranks."
        )
