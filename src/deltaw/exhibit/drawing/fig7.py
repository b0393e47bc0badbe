"""Figure 7 of the LoRA paper (App. H.2): φ between two seeds of one rank, at four layers, for ΔW_q, ΔW_v or others."""

from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.heading import UNKNOWN, Source, heading_of_pair
from deltaw.exhibit.drawing.scale import PAPER, Scale
from deltaw.exhibit.drawing.texts import layer_label, update_label

SIDE = 1.275  # inches
J_TICKS = 13  # as in the paper


def draw(cells: pd.DataFrame, layers: list[int], scale: Scale = PAPER, source: Source = UNKNOWN) -> Figure:
    """A panel for each layer and projection: two layers in a row, or one layer of three projections or more.

    A layer with many projections has several rows.

    Args:
        cells: φ of one pair in one basis, with the projections in the order of the panels.
        layers: layers of `cells`, in reading order; the panel of a projection that a layer lacks stays empty.
        scale: what the colours mean. The paper's bar goes from 0 to 0.8, this bar further if the data do.
        source: models and data, for the subtitle.
    """
    shown = cells[cells.layer.isin(layers)]
    norm = scale.norm(scale.values(shown), 0.0, 0.8)
    projections = shown.projection.unique().tolist()
    rows_of_layer = panel.break_rows(projections)
    per_row = min(len(layers), 2 if len(projections) <= 2 else 1)
    rows = len(rows_of_layer) * ceil(len(layers) / per_row)
    comma = ", " if all(len(projection) == 1 for projection in projections) else "\n"
    places = [(layer, projection) for layer in layers for row in rows_of_layer for projection in row]
    titles = [f"{layer_label(layer)}{comma}{update_label(name)}" if name else "" for layer, name in places]
    groups = [[SIDE] * len(rows_of_layer[0])] * per_row
    figure, panels, bar = panel.page(heading_of_pair(shown, scale, source), groups, SIDE, titles, rows)
    for axes, (layer, projection) in zip(panel.keep_first(panels, len(places)), places, strict=True):
        site = panel.site(shown, layer, projection)
        if site.empty:
            panel.leave_empty(axes, scale)
            axes.set_visible(bool(projection))
            continue
        image = panel.fill(axes, panel.matrix(site, scale), scale, norm, j_ticks=J_TICKS)
    panel.name_axes(panels, [""] * rows)
    panel.add_bar(bar, image, scale)
    return figure
