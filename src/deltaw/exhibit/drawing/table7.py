"""Table 7 of the LoRA paper (§7.3, App. H.4): how much of W lies in the directions of ΔW, and the amplification."""

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing.heading import UNKNOWN, Heading, Source, subtitle
from deltaw.exhibit.drawing.texts import apart, layer_label, math_label
from deltaw.exhibit.drawing.typeset import HEAVY, LIGHT, Sheet, numbers

PROJECTED = r"$\Vert U^\mathsf{T} W V^\mathsf{T} \Vert_F$"
HEAD = ["arm", "$r$", r"$\Delta W$", "$W$", "random", "(expected)", r"$\Vert W \Vert_F$", r"$\Vert \Delta W \Vert_F$"]
NOTE = (
    "U and V are the first k left- and right-singular vectors of ΔW, of W, or of a random matrix; k is the numerical "
    "rank of ΔW. The value expected for a random matrix is k‖W‖ / √(d_out d_in). Amplification is ‖ΔW‖ / ‖UᵀWVᵀ‖ with "
    "U and V from ΔW. Times random is ‖UᵀWVᵀ‖ with U and V from ΔW, divided by the expected value."
)


def draw(amplification: pd.DataFrame, source: Source = UNKNOWN) -> Figure:
    """A block per layer and projection, in the order of the table, with a row per arm.

    Args:
        amplification: a row per arm and site; a page has room for about 40 rows.
        source: models and data, for the subtitle.
    """
    order = {projection: n for n, projection in enumerate(amplification.projection.unique())}
    table = amplification.assign(order=amplification.projection.map(order))
    table = table.sort_values(["layer", "order", "rank"], kind="stable")
    names = dict(zip(table.arm.unique(), apart(table.arm.unique().tolist()), strict=True))
    columns = [
        table.arm.map(names),
        table["rank"].astype(str),
        numbers(table.by_update, 2),
        numbers(table.by_W, 2),
        numbers(table.by_random, 2),
        numbers(table.by_random_closed, 2),
        numbers(table.norm_W, 2),
        numbers(table.norm_update, 2),
        numbers(table.factor, 1),
        numbers(table.by_update / table.by_random_closed, 1),
    ]
    head = [*HEAD, "amplification", "times random"]
    rows = [list(row) for row in zip(*columns, strict=True)]
    title = r"How much of $W$ lies in the directions of $\Delta W$"
    sheet = Sheet(Heading(title, subtitle(source, table.step)), [head, *rows])
    sheet.rule(HEAVY)
    sheet.spanning(f"{PROJECTED}, $U$ and $V$ from", 2, 5)
    sheet.row(head)
    is_first = ~table.duplicated(["layer", "projection"])  # of its block
    for row, first, layer, projection in zip(rows, is_first, table.layer, table.projection, strict=True):
        if first:
            sheet.rule(LIGHT)
            sheet.row([f"{layer_label(layer)}, {math_label('W', projection)}"])
        sheet.row(row)
    sheet.rule(HEAVY)
    return sheet.finish(NOTE)
