"""Table 6 of the LoRA paper (§7.2), with the validation loss beside the accuracy: what each rank reaches."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.typeset import HEAVY, LIGHT, Sheet, numbers
from deltaw.run.metrics import MEASURED

NAMES = {"end": "loss", **MEASURED}
ENOUGH = 3  # seeds: of ranks that are all equal, a best one stands out in 4 % of cases at most; with 2 in up to 21 %
VARIANT = " Variant, as in the names of arms: a is alpha, p stands for patterns of rank or alpha."
SPREAD = (
    " Means over the seeds of arms that are alike in all else; spread: from the lowest of them to the highest. Bold: "
    f"the best mean of {ENOUGH} seeds or more, where its lead over the next is wider than the spread of either."
)


def draw(losses: pd.DataFrame) -> Figure:
    """A row per rank, variant and learning rate: means over seeds, and their spread; controls below.

    There is no column of variants where there are none, and none of spreads where there is one seed.

    Args:
        losses: a row per arm.
    """
    measures = [measure for measure in NAMES if measure in losses]
    table = summarise(losses, measures)
    several = bool((table.seeds > 1).any())
    begins = ~table.control.duplicated()
    columns = [
        ("control", table.control.replace("", "none").where(begins, "")),
        ("$r$", table["rank"].astype(str)),
        *([("variant", table.variant)] if table.variant.any() else []),
        ("learning rate", in_full(table.lr)),
        ("seeds", table.seeds.astype(str)),
        ("loss at start", numbers(table.start, 2)),
    ]
    best: dict[int, int | None] = {}  # by column, its row to be set in bold
    for measure in measures:
        best[len(columns)] = stands_out(table[table.control == ""], measure)
        columns.append((NAMES[measure], means := numbers(table[measure], 2)))
        if several:
            columns.append(("spread", as_exact(table[f"{measure} spread"], means)))
    head, rows = (
        [name for name, _ in columns],
        [list(row) for row in zip(*(texts for _, texts in columns), strict=True)],
    )
    sheet = Sheet("Validation by rank", [head, *rows])
    sheet.rule(HEAVY)
    sheet.row(head)
    for row, first, number in zip(rows, begins, table.index, strict=True):
        if first:
            sheet.rule(LIGHT)
        for column, text in enumerate(sheet.row(row)):
            text.set_fontweight("bold" if best.get(column) == number else "normal")
    sheet.rule(HEAVY)
    unit = " or ".join(losses.unit.unique())
    told = VARIANT if table.variant.any() else ""
    return sheet.done(f"Loss, in nats, and accuracy are per {unit}.{told}" + (SPREAD if several else ""))


def as_exact(values: "pd.Series[float]", beside: list[str]) -> list[str]:
    """With as many decimals as the numbers beside them; "–" for what is not a number."""
    decimals = max(len(text.partition(".")[2]) for text in beside)
    return ["–" if np.isnan(value) else f"{value:.{decimals}f}" for value in values]


def in_full(values: "pd.Series[float]") -> list[str]:
    """Every digit, and the decimals of one under those of another."""
    decimals = max(len(np.format_float_positional(value, trim="-").partition(".")[2]) for value in values)
    return [f"{value:.{decimals}f}" for value in values]


def summarise(losses: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """A row per control ("" for none, which comes first), rank, variant and learning rate.

    Its columns: seeds, start, and for each of `measures` (columns of `losses`) the mean, by its name, and the spread
    from lowest to highest, NaN of one seed. A loss at the end that is not a number makes all of its row so: a seed that
    diverged is not left out.
    """
    groups = losses.fillna({"control": ""}).groupby(["control", "rank", "variant", "lr"])
    table = groups.agg(seeds=("end", "size"), known=("end", "count"), start=("start", "mean"))
    of_seeds = groups[list(measures)]
    found = of_seeds.mean().join((of_seeds.max() - of_seeds.min())[table.seeds > 1].add_suffix(" spread"))
    return table.join(found[table.known == table.seeds]).reset_index()


def stands_out(table: pd.DataFrame, measure: str) -> int | None:
    """The row with the best mean, if both it and the next have seeds enough and its lead exceeds either's spread."""
    order = table[measure].sort_values(ascending=measure == "end").dropna()
    best = table.loc[order.index[:2]]
    lead = best[measure].max() - best[measure].min()
    apart = len(best) == 2 and (best.seeds >= ENOUGH).all() and lead > best[f"{measure} spread"].max()
    return best.index[0] if apart else None
