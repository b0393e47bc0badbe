"""Table 6 of the LoRA paper (§7.2), with the validation loss for the accuracy: what each rank reaches."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.typeset import HEAVY, LIGHT, Sheet, numbers

MEAN = "end, mean"
HEAD = ["control", "$r$", "variant", "learning rate", "seeds", "start", MEAN, "lowest", "highest"]
NOTE = (
    "Nats per token, over the seeds of arms that are alike in all else. Bold: the lowest mean, where its lead over the "
    "next is wider than the spread from lowest to highest of either."
)


def draw(losses: pd.DataFrame) -> Figure:
    """A row per rank, variant and learning rate: the mean over seeds and its spread; controls below, a block each.

    There is no column of variants where there are none.

    Args:
        losses: a row per arm.
    """
    table = summarise(losses)
    best = stands_out(table[table.control == ""])
    begins = ~table.control.duplicated()
    columns = [
        table.control.replace("", "none").where(begins, ""),
        table["rank"].astype(str),
        table.variant,
        in_full(table.lr),
        table.seeds.astype(str),
        numbers(table.start, 3),
        numbers(table["mean"], 3),
        numbers(table["min"].where(table.seeds > 1), 3),
        numbers(table["max"].where(table.seeds > 1), 3),
    ]
    head = [name for name in HEAD if name != "variant" or table.variant.any()]
    rows = [[row[HEAD.index(name)] for name in head] for row in zip(*columns, strict=True)]
    sheet = Sheet("Validation loss by rank", [head, *rows])
    sheet.rule(HEAVY)
    sheet.row(head)
    for row, first, bold in zip(rows, begins, table.index == best, strict=True):
        if first:
            sheet.rule(LIGHT)
        sheet.row(row)[head.index(MEAN)].set_fontweight("bold" if bold else "normal")
    sheet.rule(HEAVY)
    return sheet.done(NOTE)


def in_full(values: "pd.Series[float]") -> list[str]:
    """Every digit, and the decimals of one under those of another."""
    decimals = max(len(np.format_float_positional(value, trim="-").partition(".")[2]) for value in values)
    return [f"{value:.{decimals}f}" for value in values]


def summarise(losses: pd.DataFrame) -> pd.DataFrame:
    """A row per control ("" for none, which comes first), rank, variant and lr: seeds, start, mean, min, max.

    A loss that is not a number makes all of its row so: a seed that diverged is not left out.
    """
    ends = losses.fillna({"control": ""}).groupby(["control", "rank", "variant", "lr"])
    table = ends.agg(seeds=("end", "size"), known=("end", "count"), start=("start", "mean"), mean=("end", "mean"))
    table = table.join(ends.end.agg(["min", "max"]))
    table.loc[table.known < table.seeds, ["mean", "min", "max"]] = float("nan")
    return table.reset_index()


def stands_out(table: pd.DataFrame) -> int | None:
    """The row of `table` with the lowest mean, if its lead over the next exceeds the spread of either."""
    lowest = table.nsmallest(2, "mean")
    lead = lowest["mean"].max() - lowest["mean"].min()
    apart = len(lowest) == 2 and (lowest.seeds > 1).all() and lead > (lowest["max"] - lowest["min"]).max()
    return lowest.index[0] if apart else None
