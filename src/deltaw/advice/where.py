"""What it costs to leave ΔW out at some sites of the best arm."""

import re
from math import isfinite, sqrt

import numpy as np
from scipy.special import stdtr

from deltaw.advice.answer import Dropped
from deltaw.advice.judged import Judged, JudgedArm, Losses
from deltaw.maths.seeds import holm
from deltaw.maths.shares import Estimate

_SITE = re.compile(r"(?P<projection>.+) of layer (?P<layer>\d+)")
_LAYERS = re.compile(r"layers? (?P<first>\d+)(?: to (?P<last>\d+))?")
LEVEL = 0.05  # two-sided, for all of a kind at once


def where_of(judged: Judged, arm: JudgedArm) -> list[Dropped]:
    """Each site, projection and third of the depth that was dropped, in the order of the evaluation.

    Costs are shares of the arm's gain. Their limits are those of `Estimate.limits` at 5 % / (2 · number of the kind)
    (Bonferroni). None at all where the gain is not above 0 at that level.
    """
    costs = {what: losses - arm.uncut for what, losses in arm.dropped.items() if np.isfinite(losses).all()}
    kinds = {what: _kind(what) for what in costs}
    estimates = {what: _estimate(judged, arm, cost) for what, cost in costs.items()}
    of_sites = [what for what, kind in kinds.items() if kind == "site"]
    p = {what: _p(estimate) for what, estimate in estimates.items()}
    p |= dict(zip(of_sites, map(float, holm([p[what] for what in of_sites])), strict=True))
    rows = []
    for what, estimate in estimates.items():
        level = LEVEL / 2 / list(kinds.values()).count(kinds[what])
        total, adds_up = None, None
        within = [] if kinds[what] == "site" else [site for site in of_sites if _contains(what, site)]
        if within:  # costs add up where sites do not interact
            total = sum(estimates[site].share for site in within)
            least, most = _estimate(judged, arm, costs[what] - sum(costs[site] for site in within)).limits(level)
            adds_up = least <= 0 <= most
        rows.append(Dropped(what, kinds[what], estimate.share, *estimate.limits(level), p[what], total, adds_up))
    return rows if all(isfinite(row.at_most) for row in rows) else []


def _estimate(judged: Judged, arm: JudgedArm, cost: Losses) -> Estimate:
    """A cost, and the arm's gain."""
    found = judged.ratios(cost, arm.base - arm.uncut)
    return Estimate(found.means, found.covariance, judged.clusters - 1)


def _kind(what: str) -> str:
    if _SITE.fullmatch(what):
        return "site"
    return "third" if _LAYERS.fullmatch(what) else "projection"


def _contains(what: str, site: str) -> bool:
    """Whether a site belongs to a projection or to a range of layers."""
    place, layers = _SITE.fullmatch(site), _LAYERS.fullmatch(what)
    assert place is not None
    if layers is None:
        return place["projection"] == what
    return int(layers["first"]) <= int(place["layer"]) <= int(layers["last"] or layers["first"])


def _p(estimate: Estimate) -> float:
    """Probability of such a cost if the true one is 0, one-sided."""
    cost, se = float(estimate.means[0]), sqrt(estimate.covariance[0, 0])
    return float(stdtr(estimate.freedom, -cost / se)) if se else float(cost <= 0)
