"""Figure 8 of the LoRA paper (App. H.3): φ between the singular directions of W and of arms."""

from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.panel import PAPER, Scale

ACROSS, HEIGHT, PER_ROW = 1.295, 1.7, 4  # inches, inches, panels
I_TICKS = 15  # as in the paper


def draw(panels: dict[str, pd.DataFrame], layer: int, scale: Scale = PAPER) -> Figure:
    """A panel per arm: the directions of W downward, in the range of the table, the directions of the arm to the right.

    Args:
        panels: label of an arm ("r=4", …, "random") → φ at one site, with the same range of i for every arm.
        layer: the layer of that site.
        scale: what the colours mean. The paper's bar goes from 0.1 to 0.2, this bar further either way if the data do.
    """
    cell = next(iter(panels.values())).iloc[0]
    W, symbol = panel.math_label("W", cell.projection), panel.SYMBOLS[cell.basis]
    in_title = W.strip("$") if len(cell.projection) == 1 else "W"  # a longer name stands in the note alone
    side = "left" if cell.basis == "output" else "right"
    of_W, of_arms = f"{side}-singular vectors of {W}, by falling singular value", panel.MEANINGS[cell.basis]
    names = ", ".join(panel.name_of(cells.iloc[0], "right") for cells in panels.values())
    note = panel.join_notes(f"$i$: {of_W}", f"$j$: {of_arms}", f"panels: {names}", scale.meaning)
    norm = scale.norm(scale.values(pd.concat(panels)), 0.1, 0.2)
    rows = ceil(len(panels) / PER_ROW)
    groups = [[ACROSS] * min(len(panels), PER_ROW)]
    arms = [label if label.startswith("r=") else rf"\mathrm{{{label}}}" for label in panels]
    titles = [rf"$\phi({in_title}, {symbol}_{{{arm}}}, i, j)$" for arm in arms]
    figure, axes_rows, bar = panel.page(scale.label, note, groups, HEIGHT, titles, rows)
    for axes, cells in zip(panel.keep_first(axes_rows, len(panels)), panels.values(), strict=True):
        image = panel.fill(axes, panel.matrix(cells, scale), scale, norm, I_TICKS)
        axes.title.set_fontsize(panel.LABEL - 1)
    for _, *others in axes_rows:  # all panels of a row have the same i
        for axes in others:
            axes.tick_params(labelleft=False)
    panel.name_axes(axes_rows, [f"Layer {layer}"] * rows)
    panel.add_bar(bar, image, scale)
    return figure
