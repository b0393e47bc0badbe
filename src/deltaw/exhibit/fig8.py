"""Figure 8 of the LoRA paper (App. H.3): φ between the singular directions of W and those of arms."""

from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit import panel
from deltaw.exhibit.panel import PAPER, Scale

ACROSS, HEIGHT, PER_ROW = 1.295, 1.7, 4  # inches, inches, panels
I_TICKS = 15  # as in the paper


def draw(panels: dict[str, pd.DataFrame], layer: int, scale: Scale = PAPER) -> Figure:
    """A panel per arm: the directions of W downward, in the range that the table has, those of the arm to the right.

    Args:
        panels: label of an arm ("r=4", …, "random") → φ at one site, of the same i in every table.
        layer: that the tables are of.
        scale: of the colours; the paper's bar goes from 0.1 to 0.2, this one further either way if the data do.
    """
    some = next(iter(panels.values())).iloc[0]
    W, symbol = panel.named("W", some.projection), panel.SYMBOLS[some.basis]
    in_title = W.strip("$") if len(some.projection) == 1 else "W"  # a longer name stands in the note alone
    side = "left" if some.basis == "output" else "right"
    note = f"$i$: {side}-singular vectors of {W}, by falling singular value; $j$: those of {panel.plain(symbol)}"
    if some.basis == "update":
        note += f"; {panel.MEANINGS['update']}"
    norm = scale.norm(scale.values(pd.concat(panels)), 0.1, 0.2)
    rows = ceil(len(panels) / PER_ROW)
    groups = [[ACROSS] * min(len(panels), PER_ROW)]
    arms = [label if label.startswith("r=") else rf"\mathrm{{{label}}}" for label in panels]
    titles = [rf"$\phi({in_title}, {symbol}_{{{arm}}}, i, j)$" for arm in arms]
    figure, axes_of, bar = panel.page("", note, groups, HEIGHT, titles, rows)
    for axes, cells in zip(panel.shown(axes_of, len(panels)), panels.values(), strict=True):
        image = panel.fill(axes, panel.matrix(cells, scale), norm, I_TICKS)
        axes.title.set_fontsize(panel.LABEL - 1)
    for _, *others in axes_of:  # the numbers of i are the same in the whole row
        for axes in others:
            axes.tick_params(labelleft=False)
    panel.name_axes(axes_of, [f"Layer {layer}"] * rows)
    panel.add_bar(bar, image, scale)
    return figure
