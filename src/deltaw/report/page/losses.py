"""Loss against rank: trained arms with the spread of their seeds, cuts with intervals, base and controls as lines."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite, sqrt
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from deltaw.advice.answer import Advice
from deltaw.advice.judged import Judged, JudgedArm, judged_of, judged_rows
from deltaw.run.directory import RunDirectory

Row = tuple[str, int, float]  # what sets its recipe apart, rank, loss

CAPTION = "Bars span the seeds of a rank; a bar of a cut is the 95 % interval of its difference from the uncut arm."


def loss_against_rank(
    runs: Sequence[RunDirectory], losses: pd.DataFrame, advice: Advice | None
) -> dict[str, Any] | None:
    """The chart's series (points with rank, loss, low and high, all in nats) and its lines (name and loss).

    The losses are those of the judged examples where an advice rests on them, else of the last validation.

    Args:
        losses: `Tables.losses`.

    Returns:
        None where no loss is known.
    """
    if advice and advice.evidence:
        judged = judged_of(runs, [judged_rows(run) for run in runs])
        return _of_judged(judged, advice.evidence.unit)
    return _of_validation(losses)


def _of_judged(judged: Judged, unit: str) -> dict[str, Any]:
    arms = [arm for arm in judged.arms if not arm.diverged]
    means = {arm.name: float(judged.ratios(arm.uncut).means[0]) for arm in arms}
    base = float(judged.ratios(arms[0].base).means[0])
    task = [arm for arm in arms if arm.record["control"] is None]
    rows = [(_recipe(arm.record), arm.record["rank"], means[arm.name]) for arm in task]
    cuts = [
        {"name": f"{arm.name}, cut", "points": list(_cuts(judged, arm, means[arm.name]))} for arm in task if arm.cuts
    ]
    lines = [{"name": "base", "loss": base}]
    lines += [{"name": arm.name, "loss": means[arm.name]} for arm in arms if arm.record["control"] is not None]
    return _chart(f"judged loss, nats a {unit}", [*_trained(rows), *cuts], lines)


def _cuts(judged: Judged, arm: JudgedArm, uncut: float) -> Iterator[dict[str, float]]:
    """The cuts of an arm from the smallest up, as far as their losses are finite."""
    for cut, losses in sorted(arm.cuts.items()):
        found = judged.ratios(losses - arm.uncut)
        loss = uncut + float(found.means[0])
        half = float(stdtrit(found.clusters - 1, 0.975)) * sqrt(found.covariance[0, 0])
        if isfinite(loss):
            yield {"rank": cut, "loss": loss, "low": loss - half, "high": loss + half}


def _of_validation(losses: pd.DataFrame) -> dict[str, Any] | None:
    known = losses[losses.end.notna()]
    if known.empty:
        return None
    task = known[known.control.isna()]
    rows = [(_recipe(row), int(row["rank"]), float(row["end"])) for row in task.to_dict("records")]
    lines = [{"name": "base", "loss": float(known.start.iloc[0])}] if known.start.notna().any() else []
    controls = known[known.control.notna()]
    lines += [{"name": str(row["arm"]), "loss": float(row["end"])} for row in controls.to_dict("records")]
    return _chart(f"validation loss, nats a {known.unit.iloc[0]}", list(_trained(rows)), lines)


def _chart(axis: str, series: list[dict[str, Any]], lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {"axis": axis, "series": series, "lines": lines, "caption": CAPTION}


def _recipe(arm: Any) -> str:
    variant = arm.get("variant", "")
    return f"learning rate {arm['lr']:g}" + (f", {variant}" if variant else "")


def _trained(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """A series per recipe, with a point per rank: the mean over its seeds, and the lowest and the highest loss."""
    recipes: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for recipe, rank, loss in rows:
        recipes[recipe][rank].append(loss)
    for recipe, ranks in recipes.items():
        points = [
            {"rank": rank, "loss": sum(losses) / len(losses), "low": min(losses), "high": max(losses)}
            for rank, losses in sorted(ranks.items())
        ]
        yield {"name": "trained" if len(recipes) == 1 else f"trained, {recipe}", "points": points, "trained": True}
