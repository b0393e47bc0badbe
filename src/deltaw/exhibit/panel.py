"""What the grids of φ share: the page, its heading, panels of cells, and what their colours mean."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count, pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.transforms import blended_transform_factory

# Lightness rises evenly, so that the picture reads in grey too. Cells left out have a colour of their own.
COLORS = LinearSegmentedColormap.from_list("phi", ["#0a0618", "#571c52", "#c81d51", "#f3835a", "#fbeadc"])
BLANK = "#d9dfeb"

# Inches: the whole is as wide as a paper's text.
WIDTH, LEFT, RIGHT, BOTTOM = 7.0, 0.6, 0.4, 0.36
GAP, GROUP_GAP, ROW_GAP, TITLED_ROW_GAP, BAR = 0.18, 0.26, 0.21, 0.44, 0.1
TITLE_ROOM, NOTE_ROOM, LABEL_ROOM = 0.28, 0.13, 0.3  # above the panels: the title, a line of the note, their own titles
LINE = 0.14  # from one line of a label to the next
TITLE, LABEL, NOTE, NUMBER = 11, 9, 7, 6  # points
ACROSS = 4  # projections side by side, so that a page of many stays as wide as one of q, k, v and o
BROKEN, CHARACTERS = LABEL - 1, 17  # a label of several lines: its points, and how many fit the narrowest panel

# What is compared, by basis: its symbol in a title, and what the reader has to be told about it.
SYMBOLS = {"A": "A", "update": r"\Delta A", "input": r"\Delta W", "output": r"\Delta W"}
MEANINGS = {
    "A": "",
    "update": "ΔA = A − A₀: what training added to A",
    "input": "right-singular vectors of ΔW (its input side)",
    "output": "left-singular vectors of ΔW (its output side)",
}


@dataclass(frozen=True)
class Scale:
    """What the colours of φ mean.

    Attributes:
        label: what stands above the colour bar.
        values: the numbers that cells (columns phi and null_mean) are coloured by; NaN stays NaN.
        norm: the range of the bar, from all values drawn and from where the paper's bar begins and ends.
    """

    label: str
    values: Callable[[pd.DataFrame], "pd.Series[float]"]
    norm: Callable[["pd.Series[float]", float, float], Normalize]


def _reaching_the_data(values: "pd.Series[float]", low: float, high: float) -> Normalize:
    """From `low` to `high`, further to the next 0.1 where the data go further: no cell is silently off the bar."""
    tenths = (10 * values.dropna()).round(9).to_numpy()  # 0.3 is no more than three tenths
    return Normalize(floor(tenths.min(initial=10 * low)) / 10, ceil(tenths.max(initial=10 * high)) / 10)


def _from_chance_up(values: "pd.Series[float]", *_: float) -> Normalize:
    """Logarithmic from 1 to the first of 2, 5, 10, 20, … that no value exceeds."""
    largest = values.dropna().to_numpy().max(initial=2)
    return LogNorm(1, next(top for n in count() for top in (10**n, 2 * 10**n, 5 * 10**n) if top >= largest))


# As in the paper, on a linear scale; or how many times more than chance, where chance and less are one colour.
PAPER = Scale("", lambda cells: cells.phi, _reaching_the_data)
TIMES_CHANCE = Scale("φ / chance", lambda cells: (cells.phi / cells.null_mean).clip(lower=1), _from_chance_up)


def heading(cells: pd.DataFrame) -> tuple[str, str]:
    """Title and note of a figure of one pair in one basis. The note tells arms of one rank apart."""
    ends = cells.iloc[0]
    symbol, meaning = SYMBOLS[ends.basis], MEANINGS[ends.basis]
    left, right = cells.i.max(), cells.j.max()  # ranks
    prime = r"^{\prime}" if left == right else ""
    title = rf"$\phi({symbol}_{{r={left}}}, {symbol}_{{r={right}}}{prime}, i, j)$"
    if not prime:
        return title, meaning
    names = f"{plain(symbol)}: {_arm(ends, 'left')}; {plain(symbol)}′: {_arm(ends, 'right')}"
    return title, "; ".join(filter(None, [names, meaning]))


def plain(symbol: str) -> str:
    """One of SYMBOLS outside of a formula."""
    return symbol.replace(r"\Delta ", "Δ")


def named(symbol: str, projection: str) -> str:
    """The matrix `symbol` of a projection, in one line: W_q, an upright subscript for a name, "W of" for a path."""
    if len(projection) == 1:
        return f"${symbol}_{projection}$"
    if projection.isidentifier() and len(projection) < CHARACTERS:
        upright = projection.replace("_", r"\_")
        return rf"${symbol}_\mathrm{{{upright}}}$"
    return f"{plain(symbol)} of {projection}"


def label_of(projection: str) -> str:
    """ΔW of a projection as a label, a path broken into lines at its dots."""
    label = named(r"\Delta W", projection)
    if label.startswith("$"):
        return label
    lines = textwrap.wrap(label.replace(".", ". "), CHARACTERS, break_on_hyphens=False)
    return "\n".join(lines).replace(". ", ".")


def label_size(label: str) -> int:
    """Points: smaller where it has several lines."""
    return BROKEN if "\n" in label else LABEL


def _arm(ends: "pd.Series[Any]", side: str) -> str:
    step = ends[f"step_{side}"]
    return ends[side] if pd.isna(step) else f"{ends[side]} (step {step})"


def page(
    title: str, note: str, groups: list[list[float]], height: float, titles: list[str], rows: int = 1
) -> tuple[Figure, list[list[Axes]], Axes]:
    """An empty figure with a heading, its panels row by row, and the axes of the colour bar to the right of them.

    Args:
        title: one line; "" for none.
        note: in small type below the title, broken into lines where it is long; "" for none.
        groups: widths of a row's panels in inches, as groups that a wider gap sets apart.
        height: of a panel, in inches.
        titles: of panels in reading order: of the first row, or of every row.
        rows: of panels.
    """
    widths = np.concatenate(groups)
    gaps = np.concatenate([[GAP] * (len(group) - 1) + [GROUP_GAP] for group in groups])
    starts = LEFT + np.cumsum([0, *(widths + gaps)])
    bar_x = starts[-1] - GROUP_GAP + GAP
    across = bar_x + BAR + RIGHT
    lines = textwrap.wrap(note, int(17 * across), break_on_hyphens=False)
    further = max(label.count("\n") for label in titles) * LINE
    row_gap = further + TITLED_ROW_GAP if len(titles) > len(widths) else ROW_GAP
    top = 0.02 + bool(title) * TITLE_ROOM + len(lines) * NOTE_ROOM + LABEL_ROOM + further
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


def wrapped(projections: list[str]) -> list[list[str]]:
    """One layer's projections in rows of one length, at most ACROSS; "" fills the last."""
    length = ceil(len(projections) / ceil(len(projections) / ACROSS))
    filled = projections + [""] * (-len(projections) % length)
    return [filled[first : first + length] for first in range(0, len(filled), length)]


def shown(panels: list[list[Axes]], number: int) -> list[Axes]:
    """The first `number` panels in reading order; the others are hidden."""
    flat = list(chain(*panels))
    for axes in flat[number:]:
        axes.set_visible(False)
    return flat[:number]


def matrix(cells: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """The coloured values of one site: row i, column j."""
    return cells.assign(value=scale.values(cells)).pivot(index="i", columns="j", values="value")


def site(cells: pd.DataFrame, layer: int, projection: str) -> pd.DataFrame:
    """The rows of one layer and projection."""
    return cells[(cells.layer == layer) & (cells.projection == projection)]


def fill(axes: Axes, values: pd.DataFrame, norm: Normalize, i_ticks: int = 11, j_ticks: int = 11) -> AxesImage:
    """Draw the matrix `values`, i downward and j to the right; NaN is blank. At most so many ticks on each axis."""
    i, j = values.index.astype(int).to_list(), values.columns.astype(int).to_list()
    axes.set_facecolor(BLANK)
    axes.spines[:].set_linewidth(0.5)
    axes.tick_params(labelsize=NUMBER, width=0.5, length=1.5, pad=1.5)
    points = 72 / axes.figure.dpi
    marks = ticks(i[0], i[-1], i_ticks)
    axes.set_yticks(marks, _numbers(marks, axes.bbox.height * points / (i[-1] - i[0] + 1), room=7))
    marks = ticks(j[0], j[-1], j_ticks)
    axes.set_xticks(marks, _numbers(marks, axes.bbox.width * points / (j[-1] - j[0] + 1), room=4 * len(str(j[-1]))))
    edges = (j[0] - 0.5, j[-1] + 0.5, i[-1] + 0.5, i[0] - 0.5)  # cell (i, j) is centred on its numbers
    cells = np.ma.masked_invalid(values.to_numpy())  # NaN beyond a numerical rank, and where left out
    return axes.imshow(cells, COLORS, norm, extent=edges, aspect="auto", interpolation="nearest")


def ticks(first: int, last: int, most: int = 11) -> list[int]:
    """Which numbers an axis marks: all where they are `most` or fewer, else `most` even steps, the last end left out.

    This gives the ticks of the paper: 1, 6, 12, …, 58 of 64 with 11 of them, 1, 5, 10, …, 59 with 13.
    """
    if last - first < most:
        return list(range(first, last + 1))
    return np.linspace(first, first + (last - first) * (most - 1) // most, most).astype(int).tolist()


def _numbers(marks: list[int], cell: float, room: int) -> list[str]:
    """The text at each tick: its number, or every other (third, …) where cells are narrow (sizes in points)."""
    nearest = min((after - before for before, after in pairwise(marks)), default=room)
    every = ceil(room / (nearest * cell))
    return ["" if n % every else str(mark) for n, mark in enumerate(marks)]


def name_axes(panels: list[list[Axes]], labels: list[str]) -> None:
    """j below the last panel of each column, i left of each row, and left of that the row's label, if any."""
    for column in zip(*panels, strict=True):
        [axes for axes in column if axes.get_visible()][-1].set_xlabel("$j$", fontsize=LABEL, labelpad=1)
    for (first, *_), label in zip(panels, labels, strict=True):
        first.set_ylabel("$i$", fontsize=LABEL, labelpad=4, rotation=0, va="center")
        margin = blended_transform_factory(first.figure.dpi_scale_trans, first.transAxes)  # x in inches
        first.text(0.06, 0.5, label, transform=margin, fontsize=LABEL, rotation=90, va="center")


def add_bar(axes: Axes, image: AxesImage, scale: Scale) -> None:
    """The colour bar of all panels, in `axes`."""
    bar = axes.figure.colorbar(image, cax=axes)
    if isinstance(image.norm, LogNorm):
        top = image.norm.vmax or 1
        powers = [10**n for n in range(len(str(int(top))))]
        marks = powers if top > 100 else [mark for mark in np.outer(powers, [1, 2, 5]).flatten() if mark <= top]
        bar.set_ticks(marks, labels=["≤ 1", *(f"{mark}" for mark in marks[1:])])
        bar.minorticks_off()
    axes.set_title(scale.label, fontsize=NUMBER, pad=6, loc="left")
    axes.tick_params(labelsize=NUMBER + 1, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
