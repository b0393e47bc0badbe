"""Figure 7 of the LoRA paper (App. H.2): φ between two seeds of one rank, at four layers, for ΔW_q, ΔW_v or others."""

from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.panel import PAPER, Scale

SIDE = 1.275  # inches
J_TICKS = 13  # as in the paper


def draw(cells: pd.DataFrame, layers: list[int], scale: Scale = PAPER) -> Figure:
    """A panel for each layer and projection: two layers in a row, or one layer of three projections or more.

    A layer with many projections has several rows.

    Args:
        cells: φ of one pair in one basis, with the projections in the order of the panels.
        layers: layers of `cells` with all projections, in reading order.
        scale: what the colours mean. The paper's bar goes from 0 to 0.8, this bar further if the data do.
    """
    shown = cells[cells.layer.isin(layers)]
    norm = scale.norm(scale.values(shown), 0.0, 0.8)
    projections = shown.projection.unique().tolist()
    rows_of_layer = panel.break_rows(projections)
    per_row = min(len(layers), 2 if len(projections) <= 2 else 1)
    rows = len(rows_of_layer) * ceil(len(layers) / per_row)
    comma = ", " if all(len(projection) == 1 for projection in projections) else "\n"
    places = [(layer, projection) for layer in layers for row in rows_of_layer for projection in row]
    titles = [f"Layer {layer}{comma}{panel.update_label(name)}" if name else "" for layer, name in places]
    groups = [[SIDE] * len(rows_of_layer[0])] * per_row
    figure, panels, bar = panel.page(*panel.heading(cells, scale), groups, SIDE, titles, rows)
    for axes, (layer, projection) in zip(panel.keep_first(panels, len(places)), places, strict=True):
        if not projection:
            axes.set_visible(False)
            continue
        values = panel.matrix(panel.site(shown, layer, projection), scale)
        image = panel.fill(axes, values, scale, norm, j_ticks=J_TICKS)
    panel.name_axes(panels, [""] * rows)
    panel.add_bar(bar, image, scale)
    return figure
