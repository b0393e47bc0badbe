"""Figure 6 of the LoRA paper (App. H.1): φ between two ranks, at four layers, for ΔW_q and ΔW_v or others."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.heading import UNKNOWN, Source, heading_of_pair, ranks
from deltaw.exhibit.drawing.scale import PAPER, Scale
from deltaw.exhibit.drawing.texts import layer_label, update_label

# Inches. Zoomed cells are about square; a panel with all j is wider where it has more columns than a zoomed one.
HEIGHT, WIDE, ZOOMED, EQUAL = 1.02, 1.55, 1.0, 1.275


def draw(cells: pd.DataFrame, layers: list[int], scale: Scale = PAPER, source: Source = UNKNOWN) -> Figure:
    """A row per layer: a panel for each projection with all j, then one with j up to the smaller rank (zoomed).

    Panels with all j leave out the cells with j < i, zoomed panels the cells with j > i: together they show all cells.
    A layer with many projections has several rows.

    Args:
        cells: φ of one pair in one basis, with the projections in the order of the panels.
        layers: layers of `cells`, from top to bottom; the panels of a projection that a layer lacks stay empty, and a
            row without any is left out.
        scale: what the colours mean. The paper's bar goes from 0 to 1.
        source: models and data, for the subtitle.
    """
    shown = cells[cells.layer.isin(layers)]
    norm = scale.norm(scale.values(shown), 0.0, 1.0)
    rows = _rows(shown, layers)
    n = len(rows[0][1])
    wide, zoomed = (WIDE, ZOOMED) if shown.j.max() > shown.i.max() else (EQUAL, EQUAL)
    figure, panels, bar = panel.page(
        heading_of_pair(shown, scale, source),
        [[wide] * n, [zoomed] * n],
        HEIGHT,
        _titles([projections for _, projections in rows]),
        len(rows),
        ["all $j$", rf"$j \leq {ranks(shown[['rank_left', 'rank_right']].min(axis=1))}$"],
    )
    for (layer, projections), row in zip(rows, panels, strict=True):
        for projection, all_j, zoom in zip(projections, row[:n], row[n:], strict=True):
            site = panel.site(shown, layer, projection)
            if site.empty:
                for axes in (all_j, zoom):
                    panel.leave_empty(axes, scale)
                    axes.set_visible(bool(projection))
                continue
            values = panel.matrix(site, scale)
            i, j = np.meshgrid(values.index, values.columns, indexing="ij")
            panel.fill(all_j, values.where(j >= i), scale, norm)
            image = panel.fill(zoom, values.where(j <= i).iloc[:, : min(values.shape)], scale, norm)
    panel.name_axes(panels, [layer_label(layer) for layer, _ in rows])
    panel.add_bar(bar, image, scale)
    return figure


def _rows(shown: pd.DataFrame, layers: list[int]) -> list[tuple[int, list[str]]]:
    """The layer and the projections of each row; every row has some cells."""
    adapted = set(shown[["layer", "projection"]].drop_duplicates().itertuples(index=False, name=None))
    rows = product(layers, panel.break_rows(shown.projection.unique().tolist()))
    return [(layer, names) for layer, names in rows if adapted.intersection(product([layer], names))]


def _titles(rows: list[list[str]]) -> list[str]:
    """The titles of the panels: only those of the first row, where all rows have the same projections."""
    titled = rows[:1] if all(names == rows[0] for names in rows) else rows
    return [title for names in titled for title in 2 * [name and update_label(name) for name in names]]
