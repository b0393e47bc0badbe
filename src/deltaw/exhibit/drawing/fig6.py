"""Figure 6 of the LoRA paper (App. H.1): φ between two ranks, at four layers, for ΔW_q and ΔW_v or others."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.panel import PAPER, Scale

# Inches. Zoomed cells are about square; a panel with all j is wider where it has more columns than a zoomed one.
HEIGHT, WIDE, ZOOMED, EQUAL = 1.02, 1.55, 1.0, 1.275


def draw(cells: pd.DataFrame, layers: list[int], scale: Scale = PAPER) -> Figure:
    """A row per layer: a panel for each projection with all j, then one with j up to the smaller rank (zoomed).

    Panels with all j leave out the cells with j < i, zoomed panels the cells with j > i: together they show all cells.
    A layer with many projections has several rows.

    Args:
        cells: φ of one pair in one basis, with the projections in the order of the panels.
        layers: layers of `cells` with all projections, from top to bottom.
        scale: what the colours mean. The paper's bar goes from 0 to 1.
    """
    shown = cells[cells.layer.isin(layers)]
    norm = scale.norm(scale.values(shown), 0.0, 1.0)
    wide, zoomed = (WIDE, ZOOMED) if cells.j.max() > cells.i.max() else (EQUAL, EQUAL)
    rows = list(product(layers, panel.break_rows(shown.projection.unique().tolist())))
    n = len(rows[0][1])
    titled = rows[:1] if len(rows) == len(layers) else rows  # only the first, where all rows have the same projections
    titles = [label for _, row in titled for label in 2 * [name and panel.update_label(name) for name in row]]
    title, note = panel.heading(cells, scale)
    figure, panels, bar = panel.page(title, note, [[wide] * n, [zoomed] * n], HEIGHT, titles, len(rows))
    for (layer, projections), row in zip(rows, panels, strict=True):
        for projection, all_j, zoom in zip(projections, row[:n], row[n:], strict=True):
            if not projection:
                all_j.set_visible(False)
                zoom.set_visible(False)
                continue
            values = panel.matrix(panel.site(shown, layer, projection), scale)
            i, j = np.meshgrid(values.index, values.columns, indexing="ij")
            panel.fill(all_j, values.where(j >= i), scale, norm)
            image = panel.fill(zoom, values.where(j <= i).iloc[:, : min(values.shape)], scale, norm)
    panel.name_axes(panels, [f"Layer {layer}" for layer, _ in rows])
    panel.add_bar(bar, image, scale)
    return figure
