"""Figure 4 of the LoRA paper (§7.2): φ between two seeds of one rank, beside two random Gaussian matrices."""

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit import panel
from deltaw.exhibit.panel import PAPER, Scale

SIDE = 1.76  # inches
I_TICKS, J_TICKS = 8, 13  # as in the paper


def draw(cells: pd.DataFrame, random: pd.DataFrame, layer: int, scale: Scale = PAPER) -> Figure:
    """ΔW of each projection, in the order of the table, and the random pair, every cell shown; many in several rows.

    Args:
        cells: φ of one pair in one basis.
        random: φ of two Gaussian matrices with the shapes of the pair's.
        layer: one that the table has.
        scale: of the colours; the paper's bar goes from 0 to 0.5, this one further if the data do.
    """
    drawn = cells[cells.layer == layer]
    tables = {
        panel.label_of(projection): panel.site(drawn, layer, projection) for projection in drawn.projection.unique()
    }
    tables["Random Gaussian"] = random
    norm = scale.norm(scale.values(pd.concat(tables)), 0.0, 0.5)
    rows = panel.wrapped(list(tables)) if len(tables) > panel.ACROSS + 1 else [list(tables)]
    groups = [[SIDE] * len(rows[0])] if len(rows) > 1 else [[SIDE] * (len(tables) - 1), [SIDE]]
    figure, panels, bar = panel.page(*panel.heading(cells), groups, SIDE, list(tables), len(rows))
    for axes, table in zip(panel.shown(panels, len(tables)), tables.values(), strict=True):
        image = panel.fill(axes, panel.matrix(table, scale), norm, I_TICKS, J_TICKS)
    panel.name_axes(panels, [f"Layer {layer}"] * len(rows))
    panel.add_bar(bar, image, scale)
    return figure
