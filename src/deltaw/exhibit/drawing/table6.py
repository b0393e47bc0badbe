"""Table 6 of the LoRA paper (§7.2): validation loss and accuracy by rank."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing.heading import UNKNOWN, Heading, Source, subtitle
from deltaw.exhibit.drawing.texts import short
from deltaw.exhibit.drawing.typeset import HEAVY, LIGHT, Sheet, numbers
from deltaw.run.metrics import MEASURED

NAMES = {"end": "loss", **MEASURED}
DECIMALS = 3  # of accuracy and other metrics: a control's may be near 0, and its digits would fill the column
ENOUGH = 3  # seeds: if all ranks are equal, one stands out in a column in at most 5 % of cases; with 2 seeds in 22 %
VARIANT = " Variant, as in the names of arms: a stands for alpha, p for patterns of rank or alpha."
SPREAD = (
    " Numbers are means over seeds. Spread: the highest seed minus the lowest. Bold: the best mean of "
    f"{ENOUGH} seeds or more, where its lead over the next mean exceeds both spreads."
)


def draw(losses: pd.DataFrame, steps: Sequence[int] = (), source: Source = UNKNOWN) -> Figure:
    """A row per rank, variant and learning rate, with means over seeds and their spread; controls below.

    The column of variants is left out where there are none, the spreads where there is one seed.

    Args:
        losses: a row per arm.
        steps: up to which the runs were validated, for the subtitle.
        source: models and data, for the subtitle.
    """
    measures = [measure for measure in NAMES if measure in losses]
    table = summarise(losses, measures)
    several = bool((table.seeds > 1).any())
    is_first = ~table.control.duplicated()  # of its control
    columns = [
        ("control", table.control.replace("", "none").where(is_first, "")),
        ("$r$", table["rank"].astype(str)),
        *([("variant", table.variant.map(short))] if table.variant.any() else []),
        ("learning rate", in_full(table.lr)),
        ("seeds", table.seeds.astype(str)),
        ("loss at start", numbers(table.start, 2)),
    ]
    bold: dict[int, int | None] = {}  # column → the row in bold
    for measure in measures:
        bold[len(columns)] = stands_out(table[table.control == ""], measure)
        columns.append((NAMES[measure], means := texts_of(measure, table[measure])))
        if several:
            columns.append(("spread", with_decimals_of(means, table[f"{measure} spread"])))
    head, rows = (
        [name for name, _ in columns],
        [list(row) for row in zip(*(texts for _, texts in columns), strict=True)],
    )
    heading = Heading("Validation by rank", subtitle(source, pd.Series(steps, dtype=int)))
    sheet = Sheet(heading, [head, *rows])
    sheet.rule(HEAVY)
    sheet.row(head)
    for row, first, number in zip(rows, is_first, table.index, strict=True):
        if first:
            sheet.rule(LIGHT)
        for column, text in enumerate(sheet.row(row)):
            text.set_fontweight("bold" if bold.get(column) == number else "normal")
    sheet.rule(HEAVY)
    unit = " or ".join(losses.unit.unique())
    note = f"Loss, in nats, and accuracy are per {unit}."
    return sheet.finish(note + (VARIANT if table.variant.any() else "") + (SPREAD if several else ""))


def texts_of(measure: str, values: "pd.Series[float]") -> list[str]:
    """Losses as `numbers` shows them; metrics, which lie between −1 and 1, with three decimals; "–" for NaN."""
    if measure == "end":
        return numbers(values, 2)
    return with_decimals_of([f"{0:.{DECIMALS}f}"], values)


def with_decimals_of(texts: list[str], values: "pd.Series[float]") -> list[str]:
    """`values` with as many decimals as the numbers in `texts`; "–" for NaN."""
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return ["–" if np.isnan(value) else f"{value:.{decimals}f}" for value in values]


def in_full(values: "pd.Series[float]") -> list[str]:
    """Every digit of every number, all with the same number of decimals."""
    decimals = max(len(np.format_float_positional(value, trim="-").partition(".")[2]) for value in values)
    return [f"{value:.{decimals}f}" for value in values]


def summarise(losses: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """A row per control ("" for none, which comes first), rank, variant and learning rate.

    Its columns are seeds, start, and for each of `measures` (columns of `losses`) the mean under the same name and the
    spread, from lowest to highest, which is NaN for one seed. A seed that diverged, with NaN as its loss at the end,
    makes all measures of its row NaN.
    """
    groups = losses.fillna({"control": ""}).groupby(["control", "rank", "variant", "lr"])
    table = groups.agg(seeds=("end", "size"), known=("end", "count"), start=("start", "mean"))
    values = groups[list(measures)]
    spreads = (values.max() - values.min())[table.seeds > 1].add_suffix(" spread")
    return table.join(values.mean().join(spreads)[table.known == table.seeds]).reset_index()


def stands_out(table: pd.DataFrame, measure: str) -> int | None:
    """The row with the best mean, if it and the next have enough seeds and its lead exceeds both spreads."""
    order = table[measure].sort_values(ascending=measure == "end").dropna()
    best = table.loc[order.index[:2]]
    lead = best[measure].max() - best[measure].min()
    apart = len(best) == 2 and (best.seeds >= ENOUGH).all() and lead > best[f"{measure} spread"].max()
    return best.index[0] if apart else None
