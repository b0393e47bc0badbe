"""Whether the arms learned, by the judged examples."""

from math import isnan, sqrt

import numpy as np
from scipy.special import stdtrit

from deltaw.advice.answer import Learned
from deltaw.advice.judged import Judged, JudgedArm, Losses
from deltaw.run.record import WITHOUT_THE_TASK

LEVEL = 0.05  # one-sided


def learned_of(judged: Judged) -> list[Learned]:
    """The gain of every judged arm, in their order."""
    return [_learned(judged, arm) for arm in judged.arms]


def gain_of(judged: Judged, arm: JudgedArm) -> tuple[float, float]:
    """Loss of the base minus loss of the arm, with its standard error; NaN after a divergence."""
    return _mean(judged, arm.base - arm.uncut)


def is_above_zero(judged: Judged, mean: float, se: float) -> bool:
    """Whether a mean over the judged examples is above 0, one-sided at 5 % by Student's t over their groups."""
    return mean > float(stdtrit(judged.clusters - 1, 1 - LEVEL)) * se


def is_better(judged: Judged, arm: JudgedArm, other: JudgedArm, margin: float = 0.0) -> bool:
    """Whether `other`'s loss is shown to be higher by more than a share `margin` of the gain of `arm`."""
    cost, gain = other.uncut - arm.uncut, arm.base - arm.uncut
    return is_above_zero(judged, *_mean(judged, cost - margin * gain))


def _learned(judged: Judged, arm: JudgedArm) -> Learned:
    gain, se = gain_of(judged, arm)
    known = not isnan(gain)
    return Learned(
        arm.name,
        arm.record["control"],
        arm.record["rank"],
        arm.record["seed"],
        arm.record["lr"],
        gain if known else None,
        se if known else None,
        _doubt(judged, arm, gain, se),
    )


def _doubt(judged: Judged, arm: JudgedArm, gain: float, se: float) -> str | None:
    if isnan(gain):
        return "diverged"
    if not is_above_zero(judged, gain, se):
        start, end = (_mean(judged, losses)[0] for losses in (arm.base, arm.uncut))
        return f"has no clear gain (its loss went from {start:.2f} to {_short(end)} on the judged examples)"
    if arm.record["control"] is not None:
        return None
    same = (arm.recipe, arm.record["seed"])
    controls = [one for one in judged.arms if one.record["control"] in WITHOUT_THE_TASK]
    compared = [one for one in controls if (one.recipe, one.record["seed"]) == same and not one.diverged]
    better = [one for one in compared if not is_better(judged, arm, one)]
    return f"did not clearly gain more than its control {better[0].name}" if better else None


def _short(loss: float) -> str:
    """A loss, which may be huge."""
    return f"{loss:.2f}" if loss < 10_000 else f"{loss:.1e}"


def _mean(judged: Judged, losses: Losses) -> tuple[float, float]:
    if not np.isfinite(losses).all():
        return np.nan, np.nan
    found = judged.ratios(losses)
    return float(found.means[0]), sqrt(found.covariance[0, 0])
