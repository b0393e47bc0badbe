"""Loss against rank: trained arms with the spread of their seeds, cuts with intervals, base and controls as lines."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from deltaw.advice.answer import Advice
from deltaw.advice.by_rank import judged_in, losses_by_rank
from deltaw.analysis.comparable import MOST_NAMED, listed
from deltaw.analysis.experiment import why_apart
from deltaw.run.directory import RunDirectory

OF_SEEDS = "Bars of trained arms span the seeds of a rank."
OF_CUTS = "A bar of a cut is the 95 % interval of its difference from the uncut arm."


def loss_against_rank(
    runs: Sequence[RunDirectory], losses: pd.DataFrame, advice: Advice | None
) -> dict[str, Any] | str:
    """The chart's series (points with rank, loss, low and high, all in nats) and its lines (name and loss).

    The losses are those of the judged examples where an advice rests on them, else of the last validation.

    Args:
        runs: of both adapters; none for adapter folders.
        losses: `Tables.losses`.

    Returns:
        The chart, or why there is none, as a sentence.
    """
    if advice and advice.evidence:
        return _of_judged(losses_by_rank(judged_in(runs)), advice.evidence.unit)
    if not runs:
        return "No losses of these adapters are known: they belong to no run."
    names = listed([run.path.name for run in runs], MOST_NAMED)
    if why_apart(runs):
        return f"{names} are not one experiment, so their losses share no chart. Each arm's losses by step are below."
    if losses.empty:
        return f"No losses are known: {names} recorded no validation."
    if losses.end.isna().all():
        return f"No loss is finite: {listed(list(losses.arm), MOST_NAMED)} diverged."
    return _of_validation(losses[losses.end.notna()])


def _of_judged(table: pd.DataFrame, unit: str) -> dict[str, Any]:
    """The same numbers as `exhibits=[loss_by_rank]` draws."""
    cuts = table[table.kind == "cut"]
    series = [{"name": "trained", "points": _spans(table[table.kind == "arm"]), "trained": True}]
    if len(cuts):
        points = cuts[["rank", "loss", "low", "high"]].to_dict("records")
        series.append({"name": f"{cuts.arm.iloc[0]}, cut", "points": points})
    return _chart(f"judged loss, nats a {unit}", series, table[~table.kind.isin(["arm", "cut"])])


def _of_validation(losses: pd.DataFrame) -> dict[str, Any]:
    rows = losses.assign(kind=losses.control.fillna("arm")).rename(columns={"end": "loss"})
    recipes = [arms for _, arms in rows[rows.kind == "arm"].groupby(["lr", "variant"], sort=False)]
    series = [
        {"name": _recipe(arms) if len(recipes) > 1 else "trained", "points": _spans(arms), "trained": True}
        for arms in recipes
    ]
    base = pd.DataFrame({"kind": ["base"], "loss": [losses.start.mean()]}).dropna()
    controls = [_largest(arms) for kind, arms in rows.groupby("kind", sort=False) if kind != "arm"]
    return _chart(f"validation loss, nats a {losses.unit.iloc[0]}", series, pd.concat([base, *controls]))


def _largest(control: pd.DataFrame) -> pd.DataFrame:
    """A control at its largest rank, at the settings with the lowest loss on average over the seeds."""
    of_rank = control[control["rank"] == control["rank"].max()]
    return of_rank.groupby(["kind", "rank", "lr", "variant"], as_index=False).loss.mean().nsmallest(1, "loss")


def _recipe(arms: pd.DataFrame) -> str:
    lr, variant = arms.lr.iloc[0], arms.variant.iloc[0]
    return f"trained, learning rate {lr:g}" + (f", {variant}" if variant else "")


def _spans(arms: pd.DataFrame) -> list[dict[str, Any]]:
    """A point per rank: the mean over its seeds, and the lowest and the highest loss."""
    losses = {int(of_rank["rank"].iloc[0]): of_rank.loss for _, of_rank in arms.groupby("rank")}
    return [{"rank": rank, "loss": each.mean(), "low": each.min(), "high": each.max()} for rank, each in losses.items()]


def _chart(axis: str, series: list[dict[str, Any]], levels: pd.DataFrame) -> dict[str, Any]:
    """With the base and each control, columns kind, rank and loss, as lines."""
    lines = [{"name": _level(row), "loss": row.loss} for row in levels.itertuples()]
    captions = [OF_SEEDS if one.get("trained") else OF_CUTS for one in series if any(map(_has_bar, one["points"]))]
    return {"axis": axis, "series": series, "lines": lines, "caption": " ".join(dict.fromkeys(captions))}


def _has_bar(point: dict[str, Any]) -> bool:
    return bool(point["low"] < point["high"])


def _level(row: Any) -> str:
    return "base" if row.kind == "base" else f"control {row.kind}, r={int(row.rank)}"
