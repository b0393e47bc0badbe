"""The parts of every grid of φ: the page, the panels of cells, and the colour bar."""

from collections.abc import Sequence
from itertools import chain, pairwise
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from deltaw.exhibit.drawing.heading import Heading
from deltaw.exhibit.drawing.scale import MINUS_CONTROL, Scale
from deltaw.exhibit.drawing.texts import BROKEN, LABEL, label_size

# Inches. The page is as wide as the text of a paper.
WIDTH, NARROWEST, LEFT, RIGHT, BOTTOM = 7.0, 4.6, 0.6, 0.4, 0.36
GAP, GROUP_GAP, ROW_GAP, TITLED_ROW_GAP, BAR = 0.18, 0.26, 0.21, 0.44, 0.1
LABEL_ROOM, GROUP_ROOM, LINE = 0.26, 0.2, 0.14  # above the panels: their titles, the labels of groups, one more line
NUMBER = 6  # points
ACROSS = 4  # projections side by side at most, as q, k, v and o


def page(
    heading: Heading,
    groups: list[list[float]],
    height: float,
    titles: list[str],
    rows: int = 1,
    group_labels: Sequence[str] = (),
) -> tuple[Figure, list[list[Axes]], Axes]:
    """An empty figure with a heading, its panels row by row, and the axes of the colour bar to the right of them.

    Args:
        heading: what stands above the panels.
        groups: widths of the panels of a row in inches, in groups with a wider gap between them.
        height: the height of a panel, in inches.
        titles: the titles of the panels in reading order, for the first row or for all rows.
        rows: the number of rows.
        group_labels: what is written over each group; empty for nothing.
    """
    widths = np.concatenate(groups)
    gaps = np.concatenate([[GAP] * (len(group) - 1) + [GROUP_GAP] for group in groups])
    needed = LEFT + sum(widths + gaps) - GROUP_GAP + GAP + BAR + RIGHT
    across = max(needed, NARROWEST)
    starts = LEFT + (across - needed) / 2 + np.cumsum([0, *(widths + gaps)])
    bar_x = starts[-1] - GROUP_GAP + GAP
    label_room = max(label.count("\n") for label in titles) * LINE
    row_gap = label_room + TITLED_ROW_GAP if len(titles) > len(widths) else ROW_GAP
    top = heading.height(across) + bool(group_labels) * GROUP_ROOM + LABEL_ROOM + label_room
    tall = rows * height + (rows - 1) * row_gap
    down = top + tall + BOTTOM
    figure = Figure(figsize=(across, down))

    def place(x: float, y: float, width: float, height: float) -> Axes:
        """Axes by inches from the left and top of the page."""
        return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))

    panels = [
        [place(x, top + row * (height + row_gap), width, height) for x, width in zip(starts, widths, strict=False)]
        for row in range(rows)
    ]
    for axes, label in zip(chain(*panels), titles, strict=False):
        axes.set_title(label, fontsize=label_size(label), pad=4)
    heading.write(figure)
    if group_labels:
        _label_groups(figure, panels[0], dict(zip(group_labels, map(len, groups), strict=True)), heading.height(across))
    return figure, panels, place(bar_x, top, BAR, tall)


def _label_groups(figure: Figure, row: list[Axes], sizes: dict[str, int], down: float) -> None:
    """Write labels over groups of so many panels of a row, `down` inches from the top, with a thin line under each."""
    height = figure.get_figheight()
    for (label, size), last in zip(sizes.items(), np.cumsum(list(sizes.values())), strict=True):
        ends = row[last - size].get_position().x0, row[last - 1].get_position().x1
        figure.text(sum(ends) / 2, 1 - (down + 0.06) / height, label, fontsize=BROKEN, ha="center", va="top")
        figure.add_artist(Line2D(ends, 2 * [1 - (down + 0.22) / height], color="black", linewidth=0.5))


def break_rows(projections: list[str]) -> list[list[str]]:
    """The projections of a layer in rows of the same length, at most ACROSS; "" fills up the last row."""
    length = ceil(len(projections) / ceil(len(projections) / ACROSS))
    filled = projections + [""] * (-len(projections) % length)
    return [filled[first : first + length] for first in range(0, len(filled), length)]


def keep_first(panels: list[list[Axes]], number: int) -> list[Axes]:
    """The first `number` panels in reading order. Hides the others."""
    flat = list(chain(*panels))
    for axes in flat[number:]:
        axes.set_visible(False)
    return flat[:number]


def matrix(cells: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """The numbers that the colours of one site stand for: row i, column j."""
    return cells.assign(value=scale.values(cells)).pivot(index="i", columns="j", values="value")


def site(cells: pd.DataFrame, layer: int, projection: str) -> pd.DataFrame:
    """The cells of one layer and projection."""
    return cells[(cells.layer == layer) & (cells.projection == projection)]


def fill(
    axes: Axes, values: pd.DataFrame, scale: Scale, norm: Normalize, i_ticks: int = 11, j_ticks: int = 11
) -> AxesImage:
    """Draw the matrix `values`, i downward and j to the right, with at most so many ticks; NaN is blank."""
    i, j = values.index.astype(int).to_list(), values.columns.astype(int).to_list()
    axes.spines[:].set_linewidth(0.5)
    axes.tick_params(labelsize=NUMBER, width=0.5, length=1.5, pad=1.5)
    points = 72 / axes.figure.dpi
    marks = ticks(i[0], i[-1], i_ticks)
    axes.set_yticks(marks, _numbers(marks, axes.bbox.height * points / (i[-1] - i[0] + 1), room=7))
    marks = ticks(j[0], j[-1], j_ticks)
    axes.set_xticks(marks, _numbers(marks, axes.bbox.width * points / (j[-1] - j[0] + 1), room=4 * len(str(j[-1]))))
    edges = (j[0] - 0.5, j[-1] + 0.5, i[-1] + 0.5, i[0] - 0.5)  # cell (i, j) is centred on its numbers
    cells = np.ma.masked_invalid(values.to_numpy())  # NaN: cells beyond a numerical rank, and cells left out
    if cells.mask.all():
        _say(axes, "no φ")
    return axes.imshow(cells, scale.colors, norm, extent=edges, aspect="auto", interpolation="nearest")


def leave_empty(axes: Axes, scale: Scale) -> None:
    """Draw a panel without cells, for a layer without this projection."""
    axes.set(xticks=[], yticks=[], facecolor=scale.colors.get_bad())
    axes.spines[:].set_linewidth(0.5)
    _say(axes, "not in\nboth")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, fontsize=NUMBER, ha="center", va="center")


def ticks(first: int, last: int, most: int = 11) -> list[int]:
    """The numbers that an axis marks, at most `most`: in equal steps where a step is at most 4, else as in the paper.

    The paper's ticks end a step before the last number: from 1 to 64, 11 ticks are 1, 6, 12, …, 58, and 13 are 1, 5,
    10, …, 59.
    """
    step = ceil((last - first + 1) / most)
    if step <= 4:
        return list(range(first, last + 1, step))
    return np.linspace(first, first + (last - first) * (most - 1) // most, most).astype(int).tolist()


def _numbers(marks: list[int], cell: float, room: int) -> list[str]:
    """The text at each tick: its number, or "" for some where cells are narrow.

    Args:
        marks: the numbers.
        cell: the size of a cell in points.
        room: the room that a number takes in points.
    """
    nearest = min((after - before for before, after in pairwise(marks)), default=room)
    every = ceil(room / (nearest * cell))
    return ["" if n % every else str(mark) for n, mark in enumerate(marks)]


def name_axes(panels: list[list[Axes]], labels: list[str]) -> None:
    """Write j below the last panel of each column, i left of each row, and the label of the row left of that.

    Numbers of three digits have no room between panels: they stand only where the panel to the left has others.
    """
    for before, axes in chain(*map(pairwise, panels)):
        if axes.get_ylim() == before.get_ylim() and axes.get_yticks()[-1:].max(initial=0) >= 100:
            axes.tick_params(labelleft=False)
    for column in zip(*panels, strict=True):
        [axes for axes in column if axes.get_visible()][-1].set_xlabel("$j$", fontsize=LABEL, labelpad=1)
    for (first, *_), label in zip(panels, labels, strict=True):
        first.set_ylabel("$i$", fontsize=LABEL, labelpad=4, rotation=0, va="center")
        margin = blended_transform_factory(first.figure.dpi_scale_trans, first.transAxes)  # x in inches
        left = first.bbox.x0 / first.figure.dpi - LEFT
        first.text(left + 0.06, 0.5, label, transform=margin, fontsize=LABEL, rotation=90, va="center")


def add_bar(axes: Axes, image: AxesImage, scale: Scale) -> None:
    """Draw the colour bar of all panels in `axes`."""
    bar = axes.figure.colorbar(image, cax=axes)
    if isinstance(image.norm, LogNorm):
        top = image.norm.vmax or 1
        powers = [10**n for n in range(len(str(int(top))))]
        marks = powers if top > 100 else [mark for mark in np.outer(powers, [1, 2, 5]).flatten() if mark <= top]
        bar.set_ticks(marks, labels=["≤ 1", *(f"{mark}" for mark in marks[1:])])
        bar.minorticks_off()
    elif scale is MINUS_CONTROL:
        bar.set_ticks(np.linspace(*axes.get_ylim(), 5).tolist())
    axes.set_title(scale.label, fontsize=NUMBER, pad=6, loc="left")
    axes.tick_params(labelsize=NUMBER + 1, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
