"""Figure 8 of the LoRA paper (App. H.3): φ between the singular directions of W and of arms."""

import re
import textwrap
from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from deltaw.analysis.columns import RANDOM
from deltaw.exhibit.drawing import panel
from deltaw.exhibit.drawing.heading import MEANINGS, SYMBOLS, UNKNOWN, Heading, Source, join_notes, subtitle
from deltaw.exhibit.drawing.scale import PAPER, Scale
from deltaw.exhibit.drawing.texts import BROKEN, CHARACTERS, apart, layer_label, math_label

ACROSS, HEIGHT, PER_ROW = 1.295, 1.7, 4  # inches, inches, panels
I_TICKS = 15  # as in the paper


def draw(panels: dict[str, pd.DataFrame], layer: int, scale: Scale = PAPER, source: Source = UNKNOWN) -> Figure:
    """A panel per arm: the directions of W downward, in the range of the table, the directions of the arm to the right.

    All panels have the same j, those of the largest rank; cells beyond the rank of an arm are blank.

    Args:
        panels: label of an arm ("r=4", …, "random") → φ at one site, with the same range of i for every arm.
        layer: the layer of that site.
        scale: what the colours mean. The paper's bar goes from 0.1 to 0.2, this bar further either way if the data do.
        source: models and data, for the subtitle.
    """
    cells = pd.concat(panels)
    norm = scale.norm(scale.values(cells), 0.1, 0.2)
    rows = ceil(len(panels) / PER_ROW)
    groups = [[ACROSS] * min(len(panels), PER_ROW)]
    titles = _titles(cells, list(panels))
    figure, axes_rows, bar = panel.page(_heading(cells, scale, source), groups, HEIGHT, titles, rows)
    for axes, table in zip(panel.keep_first(axes_rows, len(panels)), panels.values(), strict=True):
        values = panel.matrix(table, scale).reindex(columns=range(1, cells.j.max() + 1))
        image = panel.fill(axes, values, scale, norm, I_TICKS)
        axes.title.set_fontsize(BROKEN)
    for _, *others in axes_rows:  # all panels of a row have the same i
        for axes in others:
            axes.tick_params(labelleft=False)
    panel.name_axes(axes_rows, [layer_label(layer)] * rows)
    panel.add_bar(bar, image, scale)
    return figure


def _heading(cells: pd.DataFrame, scale: Scale, source: Source) -> Heading:
    cell, arms = cells.iloc[0], cells.right.unique().tolist()
    W = math_label("W", cell.projection)
    side = "left" if cell.basis == "output" else "right"
    note = join_notes(
        f"$i$: {side}-singular vectors of {W}, by falling singular value",
        f"$j$: {MEANINGS[cell.basis]} of {', '.join(_apart(arms).values())}",
        scale.meaning,
    )
    title = f"Directions of {W if W.startswith('$') else '$W$'} and of ${SYMBOLS[cell.basis]}${scale.title}"
    return Heading(title, subtitle(source, cells.step_right, cell.basis), note)


def _titles(cells: pd.DataFrame, labels: list[str]) -> list[str]:
    """The titles of the panels; a longer name of a projection stands in the heading alone."""
    projection, symbol = cells.projection.iloc[0], SYMBOLS[cells.basis.iloc[0]]
    W = math_label("W", projection).strip("$") if len(projection) == 1 else "W"
    titles = []
    for label, name in _apart(labels).items():
        is_rank = re.fullmatch(r"r=\d+", label)
        arm = f"_{{{label}}}" if is_rank else r"_{\mathrm{random}}" if label == RANDOM else ""
        lines = [] if arm else textwrap.wrap(name, CHARACTERS)
        titles.append("\n".join([rf"$\phi({W}, {symbol}{arm}, i, j)$", *lines]))
    return titles


def _apart(arms: list[str]) -> dict[str, str]:
    """The names of arms → as they are shown; the Gaussian matrix has no folder that they could share."""
    own = [arm for arm in arms if arm != RANDOM]
    shown = dict(zip(own, apart(own), strict=True))
    return {arm: shown.get(arm, arm) for arm in arms}
