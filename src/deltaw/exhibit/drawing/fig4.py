"""Figure 4 of the LoRA paper (§7.2): φ between two seeds of one rank, beside two random Gaussian matrices."""

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.heading import UNKNOWN, Source, heading_of_pair
from deltaw.exhibit.drawing.scale import MINUS_CONTROL, PAPER, Scale
from deltaw.exhibit.drawing.texts import layer_label, update_label

SIDE = 1.76  # inches
I_TICKS, J_TICKS = 8, 13  # as in the paper


def draw(
    cells: pd.DataFrame, random: pd.DataFrame, layer: int, scale: Scale = PAPER, source: Source = UNKNOWN
) -> Figure:
    """A panel for each projection, in the order of the table, and one for the Gaussian matrices; many in several rows.

    Args:
        cells: φ of one pair in one basis.
        random: φ of two Gaussian matrices of the same size. They have no control and no panel in `MINUS_CONTROL`.
        layer: a layer of `cells`.
        scale: what the colours mean. The paper's bar goes from 0 to 0.5, this bar further if the data do.
        source: models and data, for the subtitle.
    """
    shown = cells[cells.layer == layer]
    projections = shown.projection.unique()
    tables = {update_label(projection): panel.site(shown, layer, projection) for projection in projections}
    if scale is not MINUS_CONTROL:
        tables["Random Gaussian"] = random
    norm = scale.norm(scale.values(pd.concat(tables)), 0.0, 0.5)
    rows = panel.break_rows(list(tables)) if len(tables) > panel.ACROSS + 1 else [list(tables)]
    groups = [[SIDE] * len(rows[0])] if len(rows) > 1 else [[SIDE] * (len(tables) - 1), [SIDE]]
    figure, panels, bar = panel.page(heading_of_pair(shown, scale, source), groups, SIDE, list(tables), len(rows))
    for axes, table in zip(panel.keep_first(panels, len(tables)), tables.values(), strict=True):
        image = panel.fill(axes, panel.matrix(table, scale), scale, norm, I_TICKS, J_TICKS)
    panel.name_axes(panels, [layer_label(layer)] * len(rows))
    panel.add_bar(bar, image, scale)
    return figure
