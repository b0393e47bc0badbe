"""From runs to the answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

from scipy.special import stdtrit

from deltaw.advice.answer import Advice, Evidence, Ship
from deltaw.advice.command import most_judged
from deltaw.advice.judged import Judged, JudgedArm, judged_of, judged_rows
from deltaw.advice.lacking import AGAIN, lacking_in, undecidable
from deltaw.advice.largest import Largest
from deltaw.advice.learned import LEVEL, gain_of, is_above_zero, is_better, learned_of
from deltaw.advice.ship import ship_of
from deltaw.advice.train import ENOUGH, remarks_on, train_of
from deltaw.advice.where import where_of
from deltaw.analysis.comparable import MOST_NAMED, listed
from deltaw.analysis.experiment import arms_of
from deltaw.run.directory import RunDirectory
from deltaw.run.metrics import VALIDATION
from deltaw.run.record import SHADOW

POWER = 0.8  # of the test that a number of examples is given for


def advice_of(runs: Sequence[RunDirectory], margin: float) -> Advice:
    """Which rank to ship and to train, and where, with what it rests on.

    Learning rates and the best arm are chosen by the losses of the validation examples, and all that is said is
    measured on the judged ones.

    Args:
        runs: one, or several of one experiment that differ in their arms. None: the adapters are folders.
        margin: the share of the gain over the base that may be given up, above 0.

    Returns:
        The advice; `missing` or `remarks` say what the runs lack.

    Raises:
        UserError: a file of a run is there and cannot be read.
    """
    rows = [judged_rows(run) for run in runs]
    if missing := lacking_in(runs, rows):
        return Advice(missing)
    judged = judged_of(runs, rows)
    if missing := undecidable(judged):
        return Advice(missing)
    evidence, learned = _evidence(runs, judged, margin), learned_of(judged)
    chosen = Largest(judged)
    if all(one.doubt for one in learned if one.control is None):
        remarks = [*_unjudged(runs, judged), *_too_few(judged, chosen, None), *_of_other_steps(judged)]
        return Advice(None, evidence, learned, remarks=remarks)
    arm, recipe = chosen.cut_arm, chosen.cut_recipe
    ship, train = _ship(judged, arm, margin) if arm else None, train_of(judged, margin)
    return Advice(
        missing=None,
        evidence=evidence,
        learned=learned,
        ship=ship,
        recipe=ship_of(judged, recipe, margin) if len(recipe) >= ENOUGH else None,
        train=train,
        where=where_of(judged, chosen.dropped_arm) if chosen.dropped_arm else [],
        remarks=[
            *_unjudged(runs, judged),
            *_too_few(judged, chosen, ship),
            *_diverged(judged),
            *chosen.remarks(ship),
            *_of_other_steps(judged),
            *remarks_on(judged, train),
        ],
    )


def _ship(judged: Judged, arm: JudgedArm, margin: float) -> Ship | None:
    """The cuts of the best arm of the largest rank, and the arm of a smaller rank that it is shown to fall behind."""
    ship = ship_of(judged, [arm], margin)
    smaller = [one for one in judged.task if one.record["rank"] < arm.record["rank"] and not one.diverged]
    rival = min(smaller, key=lambda one: one.validation, default=None)
    if ship and rival and rival.validation < arm.validation and is_better(judged, rival, arm, margin):
        return replace(ship, better=rival.name)
    return ship


def _evidence(runs: Sequence[RunDirectory], judged: Judged, margin: float) -> Evidence:
    return Evidence(
        [run.path.name for run in runs],
        judged.step,
        len(judged.labels),
        judged.clusters,
        int(judged.labels.sum()),
        _validated(runs[0]),
        runs[0].unit,
        margin,
    )


def _validated(run: RunDirectory) -> int:
    """Number of validation examples of a run."""
    table = run.evaluation()
    return table[table.split == VALIDATION].example.nunique() or run.record.data.get("validation", 0)


def _unjudged(runs: Sequence[RunDirectory], judged: Judged) -> Iterator[str]:
    """That arms were not judged on all examples, because the run was interrupted."""
    there = {arm.name for arm in judged.arms}
    trained = [name for name, member in arms_of(runs).items() if member.arm["control"] != SHADOW]
    if lacking := [name for name in trained if name not in there]:
        yield f"{listed(lacking, MOST_NAMED)} {'was' if len(lacking) == 1 else 'were'} not judged: {AGAIN}."


def _diverged(judged: Judged) -> Iterator[str]:
    """Which arms of the task no statement rests on."""
    if diverged := [arm.name for arm in judged.task if arm.diverged]:
        yield f"{listed(diverged, MOST_NAMED)} diverged and {'does' if len(diverged) == 1 else 'do'} not count."


def _too_few(judged: Judged, chosen: Largest, ship: Ship | None) -> Iterator[str]:
    """That the judged examples are too few to decide anything about the best arm, with the number that would do."""
    count = len(judged.labels)
    if ship and ship.ship is None and ship.cuts[0].needed and not ship.better:
        needed, what = ship.cuts[0].needed, f"whether {ship.arm} can be cut to {ship.cuts[0].cut}"
    elif chosen.arms and (number := _needed_to_see_a_gain(judged, chosen.arms[0])):
        needed, what = number, f"whether {chosen.arms[0].name} learned"
    else:
        return
    most = most_judged(chosen.arms[0].run)
    way = (
        f"train with data.judged={needed} under another run.name, which would probably do."
        if needed <= most
        else f"about {needed:,} would probably do, and the data set can give {most:,.0f} while half of the others stay "
        "to learn."
    )
    yield f"{count} judged examples are too few to tell {what}: {way}"


def _needed_to_see_a_gain(judged: Judged, arm: JudgedArm) -> int | None:
    """Judged examples with which an arm's gain would be found; None where it is found, or is not above 0."""
    gain, se = gain_of(judged, arm)
    if gain <= 0 or is_above_zero(judged, gain, se):
        return None
    quantiles = float(stdtrit(judged.clusters - 1, [1 - LEVEL, POWER]).sum())
    return ceil(len(judged.labels) * (quantiles * se / gain) ** 2)


def _of_other_steps(judged: Judged) -> Iterator[str]:
    last = {arm.name: steps[-1] for arm in judged.arms if (steps := arm.run.steps(arm.record["name"]))}
    other = [name for name, step in last.items() if step != judged.step]
    if other:
        yield (
            f"The judged losses are those of step {judged.step}, and the last snapshot of {other[0]} is that of step "
            f"{last[other[0]]}: start the same command again."
        )
