"""The parts of every grid of φ: the page, its heading, the panels of cells, and the colour bar."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count, pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.transforms import blended_transform_factory

# Lightness rises evenly, so that the figure can also be read in grey. Cells that are left out have another colour.
BLANK = "#d9dfeb"
COLORS = LinearSegmentedColormap.from_list(
    "phi", ["#0a0618", "#571c52", "#c81d51", "#f3835a", "#fbeadc"]
).with_extremes(bad=BLANK)
# Blue below 0 and orange above, which the colour-blind tell apart. Blank is grey, since pale blue is just below 0.
DIVERGING = LinearSegmentedColormap.from_list(
    "excess", ["#08306b", "#2f79b8", "#9fc8e6", "#fafafa", "#f7b26a", "#d3620b", "#6b2703"]
).with_extremes(bad="#c0c0c0")

# Inches. The page is as wide as the text of a paper.
WIDTH, LEFT, RIGHT, BOTTOM = 7.0, 0.6, 0.4, 0.36
GAP, GROUP_GAP, ROW_GAP, TITLED_ROW_GAP, BAR = 0.18, 0.26, 0.21, 0.44, 0.1
TITLE_ROOM, NOTE_ROOM, LABEL_ROOM = (
    0.28,
    0.13,
    0.3,
)  # above the panels: the title, a line of the note, the titles of panels
LINE = 0.14  # the height of a line of a label
TITLE, LABEL, NOTE, NUMBER = 11, 9, 7, 6  # points
ACROSS = 4  # projections side by side at most, as q, k, v and o
BROKEN, CHARACTERS = LABEL - 1, 17  # a label of several lines: its points, and the characters of a line

# Basis → the symbol of the compared matrix in a title, and the directions that are compared.
SYMBOLS = {"A": "A", "update": r"\Delta A", "input": r"\Delta W", "output": r"\Delta W"}
MEANINGS = {
    "A": "right-singular vectors of A",
    "update": "right-singular vectors of ΔA = A − A₀ (what training added)",
    "input": "right-singular vectors of ΔW (its input side)",
    "output": "left-singular vectors of ΔW (its output side)",
}


@dataclass(frozen=True)
class Scale:
    """What the colours of φ mean.

    Attributes:
        label: the text above the colour bar.
        meaning: what φ is divided by or lessened by, for the note; "" for nothing.
        colors: the colour of cells without a number is its bad one.
        values: cells (columns phi, null_mean and control) → the numbers that colours stand for; NaN stays NaN.
        norm: all numbers that are shown, and the two ends of the paper's bar → the range of this bar.
    """

    label: str
    meaning: str
    colors: Colormap
    values: Callable[[pd.DataFrame], "pd.Series[float]"]
    norm: Callable[["pd.Series[float]", float, float], Normalize]


def _paper_range(values: "pd.Series[float]", low: float, high: float) -> Normalize:
    """From `low` to `high`, or to the next 0.1 beyond the data, so that no cell is off the bar."""
    tenths = (10 * values.dropna()).round(9).to_numpy()  # rounded, so that 0.3 needs no further tenth
    return Normalize(floor(tenths.min(initial=10 * low)) / 10, ceil(tenths.max(initial=10 * high)) / 10)


def _range_from_chance(values: "pd.Series[float]", *_: float) -> Normalize:
    """Logarithmic, from 1 to the smallest of 2, 5, 10, 20, … that no value exceeds."""
    largest = values.dropna().to_numpy().max(initial=2)
    return LogNorm(1, next(top for n in count() for top in (10**n, 2 * 10**n, 5 * 10**n) if top >= largest))


def _range_around_zero(values: "pd.Series[float]", *_: float) -> Normalize:
    """As far below 0 as above, to the next 0.1 beyond the data."""
    return _paper_range(pd.concat([values, -values]), -0.1, 0.1)


# φ on a linear scale, as in the paper; φ as a multiple of chance, with one colour for chance and less; or φ less φ of
# the control pair.
PAPER = Scale("", "", COLORS, lambda cells: cells.phi, _paper_range)
TIMES_CHANCE = Scale(
    "φ / chance",
    "chance: φ of random subspaces",
    COLORS,
    lambda cells: (cells.phi / cells.null_mean).clip(lower=1),
    _range_from_chance,
)
MINUS_CONTROL = Scale(
    "φ − control",
    "control: φ of both arms' shadows, which have nothing to learn; arms of one seed also share the order of examples",
    DIVERGING,
    lambda cells: cells.phi - cells.control,
    _range_around_zero,
)
SCALES = {"": PAPER, "times-chance": TIMES_CHANCE, "minus-control": MINUS_CONTROL}


def heading(cells: pd.DataFrame, scale: Scale) -> tuple[str, str]:
    """Title and note of a figure of one pair in one basis: the note gives the arms, the basis and the scale."""
    cell = cells.iloc[0]
    symbol = SYMBOLS[cell.basis]
    left, right = cells.i.max(), cells.j.max()  # ranks
    prime = r"^{\prime}" if left == right else ""
    title = rf"$\phi({symbol}_{{r={left}}}, {symbol}_{{r={right}}}{prime}, i, j)$" + scale.label.removeprefix("φ")
    arms = f"$i$: {name_of(cell, 'left')}; $j$: {name_of(cell, 'right')}"
    return title, join_notes(arms, f"basis {cell.basis}: {MEANINGS[cell.basis]}", scale.meaning)


def join_notes(*notes: str) -> str:
    """One line of all notes that are not empty."""
    return "; ".join(filter(None, notes))


def math_label(symbol: str, projection: str) -> str:
    """The matrix `symbol` of a projection in one line: W_q, with an upright subscript for a name, or "W of" a path."""
    if len(projection) == 1:
        return f"${symbol}_{projection}$"
    if projection.isidentifier() and len(projection) < CHARACTERS:
        upright = projection.replace("_", r"\_")
        return rf"${symbol}_\mathrm{{{upright}}}$"
    plain = symbol.replace(r"\Delta ", "Δ")
    return f"{plain} of {projection}"


def update_label(projection: str) -> str:
    """ΔW of a projection as a label; a path is broken into lines at its dots."""
    label = math_label(r"\Delta W", projection)
    if label.startswith("$"):
        return label
    lines = textwrap.wrap(label.replace(".", ". "), CHARACTERS, break_on_hyphens=False)
    return "\n".join(lines).replace(". ", ".")


def label_size(label: str) -> int:
    """The font size of a label in points: smaller for several lines."""
    return BROKEN if "\n" in label else LABEL


def name_of(cell: "pd.Series[Any]", side: str) -> str:
    """The name of the left or right arm of a cell, with its step."""
    step = cell[f"step_{side}"]
    return cell[side] if pd.isna(step) else f"{cell[side]} (step {step})"


def page(
    title: str, note: str, groups: list[list[float]], height: float, titles: list[str], rows: int = 1
) -> tuple[Figure, list[list[Axes]], Axes]:
    """An empty figure with a heading, its panels row by row, and the axes of the colour bar to the right of them.

    Args:
        title: one line; "" for none.
        note: in small type below the title, broken into lines where it is long; "" for none.
        groups: widths of the panels of a row in inches, in groups with a wider gap between them.
        height: the height of a panel, in inches.
        titles: the titles of the panels in reading order, for the first row or for all rows.
        rows: the number of rows.
    """
    widths = np.concatenate(groups)
    gaps = np.concatenate([[GAP] * (len(group) - 1) + [GROUP_GAP] for group in groups])
    starts = LEFT + np.cumsum([0, *(widths + gaps)])
    bar_x = starts[-1] - GROUP_GAP + GAP
    across = bar_x + BAR + RIGHT
    lines = textwrap.wrap(note, int(17 * across), break_on_hyphens=False)
    label_room = max(label.count("\n") for label in titles) * LINE
    row_gap = label_room + TITLED_ROW_GAP if len(titles) > len(widths) else ROW_GAP
    top = 0.02 + bool(title) * TITLE_ROOM + len(lines) * NOTE_ROOM + LABEL_ROOM + label_room
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
    figure.suptitle(title, y=1 - 0.08 / down, fontsize=TITLE)
    below = 0.06 + bool(title) * TITLE_ROOM
    figure.text(0.5, 1 - below / down, "\n".join(lines), fontsize=NOTE, ha="center", va="top")
    return figure, panels, place(bar_x, top, BAR, tall)


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
    return axes.imshow(cells, scale.colors, norm, extent=edges, aspect="auto", interpolation="nearest")


def ticks(first: int, last: int, most: int = 11) -> list[int]:
    """The numbers that an axis marks: all if there are at most `most`, else `most` in even steps, without the last.

    These are the ticks of the paper: from 1 to 64, 11 ticks are 1, 6, 12, …, 58, and 13 are 1, 5, 10, …, 59.
    """
    if last - first < most:
        return list(range(first, last + 1))
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
    """Write j below the last panel of each column, i left of each row, and the label of the row left of that."""
    for column in zip(*panels, strict=True):
        [axes for axes in column if axes.get_visible()][-1].set_xlabel("$j$", fontsize=LABEL, labelpad=1)
    for (first, *_), label in zip(panels, labels, strict=True):
        first.set_ylabel("$i$", fontsize=LABEL, labelpad=4, rotation=0, va="center")
        margin = blended_transform_factory(first.figure.dpi_scale_trans, first.transAxes)  # x in inches
        first.text(0.06, 0.5, label, transform=margin, fontsize=LABEL, rotation=90, va="center")


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
