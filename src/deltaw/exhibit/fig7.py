"""Figure 7 of the LoRA paper (App. H.2): φ between two seeds of one rank, at four layers, for ΔW_q, ΔW_v or others."""

from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit import panel
from deltaw.exhibit.panel import PAPER, Scale

SIDE = 1.275  # inches
J_TICKS = 13  # as in the paper


def draw(cells: pd.DataFrame, layers: list[int], scale: Scale = PAPER) -> Figure:
    """ΔW of each projection, side by side, for two layers a row; of three or more, a layer by itself, of
    many in several rows.

    Args:
        cells: φ of one pair in one basis, with the projections in the order to be drawn; every cell is shown.
        layers: layers of the table that have all of them, in reading order.
        scale: of the colours; the paper's bar goes from 0 to 0.8, this one further if the data do.
    """
    drawn = cells[cells.layer.isin(layers)]
    norm = scale.norm(scale.values(drawn), 0.0, 0.8)
    projections = drawn.projection.unique().tolist()
    of_layer = panel.wrapped(projections)
    per_row = min(len(layers), 2 if len(projections) <= 2 else 1)
    rows = len(of_layer) * ceil(len(layers) / per_row)
    comma = ", " if all(len(projection) == 1 for projection in projections) else "\n"
    places = [(layer, projection) for layer in layers for row in of_layer for projection in row]
    titles = [f"Layer {layer}{comma}{panel.label_of(name)}" if name else "" for layer, name in places]
    groups = [[SIDE] * len(of_layer[0])] * per_row
    figure, panels, bar = panel.page(*panel.heading(cells), groups, SIDE, titles, rows)
    for axes, (layer, projection) in zip(panel.shown(panels, len(places)), places, strict=True):
        if not projection:
            axes.set_visible(False)
            continue
        image = panel.fill(axes, panel.matrix(panel.site(drawn, layer, projection), scale), norm, j_ticks=J_TICKS)
    panel.name_axes(panels, [""] * rows)
    panel.add_bar(bar, image, scale)
    return figure
