"""Loss against rank: trained arms with the spread of their seeds, cuts with intervals, base and controls as lines."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from deltaw.advice.answer import Advice
from deltaw.advice.by_rank import judged_in, losses_by_rank
from deltaw.run.directory import RunDirectory

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
        return _of_judged(losses_by_rank(judged_in(runs)), advice.evidence.unit)
    return _of_validation(losses)


def _of_judged(table: pd.DataFrame, unit: str) -> dict[str, Any]:
    """The same numbers as `exhibits=[loss_by_rank]` draws."""
    cuts, others = table[table.kind == "cut"], table[~table.kind.isin(["arm", "cut"])]
    series = [{"name": "trained", "points": _spans(table[table.kind == "arm"]), "trained": True}]
    if len(cuts):
        points = cuts[["rank", "loss", "low", "high"]].to_dict("records")
        series.append({"name": f"{cuts.arm.iloc[0]}, cut", "points": points})
    lines = [{"name": arm or "base", "loss": loss} for arm, loss in zip(others.arm, others.loss, strict=True)]
    return _chart(f"judged loss, nats a {unit}", series, lines)


def _of_validation(losses: pd.DataFrame) -> dict[str, Any] | None:
    known = losses[losses.end.notna()].rename(columns={"end": "loss"})
    if known.empty:
        return None
    task, controls = known[known.control.isna()], known[known.control.notna()]
    recipes = [arms for _, arms in task.groupby(["lr", "variant"], sort=False)]
    series = [
        {"name": _recipe(arms) if len(recipes) > 1 else "trained", "points": _spans(arms), "trained": True}
        for arms in recipes
    ]
    lines = [{"name": "base", "loss": known.start.iloc[0]}] if known.start.notna().any() else []
    lines += [{"name": arm, "loss": loss} for arm, loss in zip(controls.arm, controls.loss, strict=True)]
    return _chart(f"validation loss, nats a {known.unit.iloc[0]}", series, lines)


def _recipe(arms: pd.DataFrame) -> str:
    lr, variant = arms.lr.iloc[0], arms.variant.iloc[0]
    return f"trained, learning rate {lr:g}" + (f", {variant}" if variant else "")


def _spans(arms: pd.DataFrame) -> list[dict[str, Any]]:
    """A point per rank: the mean over its seeds, and the lowest and the highest loss."""
    losses = {int(of_rank["rank"].iloc[0]): of_rank.loss for _, of_rank in arms.groupby("rank")}
    return [{"rank": rank, "loss": each.mean(), "low": each.min(), "high": each.max()} for rank, each in losses.items()]


def _chart(axis: str, series: list[dict[str, Any]], lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {"axis": axis, "series": series, "lines": lines, "caption": CAPTION}
