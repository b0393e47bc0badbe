"""Which cut of the largest rank to ship: the smallest that is not worse by more than the margin."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from math import ceil, isfinite, sqrt

import numpy as np
from jaxtyping import Float64

from deltaw.advice.answer import Cut, Ship
from deltaw.advice.judged import Judged, JudgedArm
from deltaw.maths.shares import Estimate

_NONE: Float64[np.ndarray, "2 2"] = np.zeros((2, 2))


def ship_of(judged: Judged, arms: Sequence[JudgedArm], margin: float) -> Ship | None:
    """Test the cuts of one arm, or of the recipe of several, in fixed sequence from the largest down.

    A cut passes where the contrast (cut − uncut) − margin · (base − uncut) is below 0, one-sided at 5 %, and all larger
    cuts pass. So the chance that any cut passes whose true contrast is 0 or more is at most 5 %, and no correction for
    the number of cuts is needed (Maurer, Hothorn and Lehmacher 1995).

    Args:
        judged: the examples.
        arms: one for a statement about this arm, at least three seeds for one about their recipe. Each has cuts.
        margin: the share of the gain that may be given up.

    Returns:
        None where the gain is not above 0, so that no share of it is known; or where no cut has finite losses.
    """
    shared = sorted(set.intersection(*(set(arm.cuts) for arm in arms)), reverse=True)
    finite = takewhile(lambda cut: all(np.isfinite(arm.cuts[cut]).all() for arm in arms), shared)
    cuts = list(_in_sequence([_measured(judged, arms, cut, margin) for cut in finite]))
    if not cuts or not isfinite(cuts[0].kept_at_least):
        return None
    passing = [cut for cut in cuts if cut.passes]
    record, seeds = arms[0].record, [arm.record["seed"] for arm in arms]
    return Ship(arms[0].name, record["rank"], record["lr"], seeds, cuts, passing[-1] if passing else None)


def _measured(judged: Judged, arms: Sequence[JudgedArm], cut: int, margin: float) -> Cut:
    """A cut by itself: `passes` and `needed` as if it were the only one."""
    estimate, of_seeds = _estimate(judged, arms, cut)
    at_least, at_most = estimate.limits()
    return Cut(
        cut,
        _parameters(arms[0], cut),
        float(estimate.means[0]),
        sqrt(estimate.covariance[0, 0]),
        1 - estimate.share,
        1 - at_most,
        1 - at_least,
        at_most <= margin,
        _needed(judged, estimate, of_seeds, margin),
    )


def _estimate(judged: Judged, arms: Sequence[JudgedArm], cut: int) -> tuple[Estimate, Float64[np.ndarray, "2 2"]]:
    """Cost and gain, means over the arms; and the part of their covariance that stems from the choice of seeds.

    With S seeds the covariance is that of the seeds' means, divided by S, plus that of the mean over the examples, and
    t has S − 1 degrees of freedom. That is too large rather than too small: the seeds' means differ by the examples
    as well.
    """
    costs = [arm.cuts[cut] - arm.uncut for arm in arms]
    gains = [arm.base - arm.uncut for arm in arms]
    found = judged.ratios(np.mean(costs, axis=0), np.mean(gains, axis=0))
    if len(arms) == 1:
        return Estimate(found.means, found.covariance, judged.clusters - 1), _NONE
    each = np.array([judged.ratios(*columns).means for columns in zip(costs, gains, strict=True)])
    of_seeds = np.cov(each, rowvar=False) / len(arms)
    return Estimate(found.means, found.covariance + of_seeds, len(arms) - 1), of_seeds


def _needed(judged: Judged, estimate: Estimate, of_seeds: Float64[np.ndarray, "2 2"], margin: float) -> int | None:
    """Judged examples with which the cut would pass; None where it is outside the margin, or too few seeds decide."""
    contrast = np.array([1, -margin])
    seeds = float(contrast @ of_seeds @ contrast)
    examples = estimate.excess(margin)[1] ** 2 - seeds
    allowed = estimate.decisive_variance(margin) - seeds
    return ceil(len(judged.labels) * examples / allowed) if allowed > 0 else None


def _in_sequence(cuts: Sequence[Cut]) -> Iterator[Cut]:
    """The cuts with `passes` false from the first that fails on, and `needed` for that one alone."""
    passes = True
    for cut in cuts:
        first_to_fail = passes and not cut.passes
        passes &= cut.passes
        yield replace(cut, passes=passes, needed=cut.needed if first_to_fail else None)


def _parameters(arm: JudgedArm, cut: int) -> float:
    """Share of the uncut arm's parameters."""
    if not arm.record.get("rank_pattern"):
        return cut / arm.record["rank"]
    sites = arm.run.adapter(arm.record["name"]).sites.values()
    sizes = [(site.rank, site.d_in + site.d_out) for site in sites]
    return sum(min(cut, rank) * width for rank, width in sizes) / sum(rank * width for rank, width in sizes)
