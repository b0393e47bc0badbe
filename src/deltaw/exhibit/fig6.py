"""Figure 6 of the LoRA paper (App. H.1): φ between two ranks, at four layers, for ΔW_q and ΔW_v or others."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit import panel
from deltaw.exhibit.panel import PAPER, Scale

# Inches: zoomed cells are about square, and panels with all j are wider where they have more columns than those.
HEIGHT, WIDE, ZOOMED, EQUAL = 1.02, 1.55, 1.0, 1.275


def draw(cells: pd.DataFrame, layers: list[int], scale: Scale = PAPER) -> Figure:
    """A row per layer: ΔW of each projection with all j, then the same zoomed to j up to the smaller rank.

    Panels with all j leave out the cells with j < i, the others those with j > i: together they show all.

    Args:
        cells: φ of one pair in one basis, with the projections in the order to be drawn.
        layers: layers of the table that have all of them, from top to bottom.
        scale: of the colours; the paper's bar goes from 0 to 1.
    """
    drawn = cells[cells.layer.isin(layers)]
    norm = scale.norm(scale.values(drawn), 0.0, 1.0)
    wide, zoomed = (WIDE, ZOOMED) if cells.j.max() > cells.i.max() else (EQUAL, EQUAL)
    projections = drawn.projection.unique().tolist()
    n = len(projections)
    titles = 2 * [panel.label_of(projection) for projection in projections]
    figure, panels, bar = panel.page(*panel.heading(cells), [[wide] * n, [zoomed] * n], HEIGHT, titles, len(layers))
    for layer, row in zip(layers, panels, strict=True):
        for projection, all_j, zoom in zip(projections, row[:n], row[n:], strict=True):
            values = panel.matrix(panel.site(drawn, layer, projection), scale)
            i, j = np.meshgrid(values.index, values.columns, indexing="ij")
            panel.fill(all_j, values.where(j >= i), norm)
            image = panel.fill(zoom, values.where(j <= i).iloc[:, : min(values.shape)], norm)
    panel.name_axes(panels, [f"Layer {layer}" for layer in layers])
    panel.add_bar(bar, image, scale)
    return figure
