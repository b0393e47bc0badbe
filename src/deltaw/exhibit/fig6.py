"""Figure 6 of the LoRA paper (App. H.1): φ between two ranks, at four layers, for ΔW_q and ΔW_v."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from deltaw.cli import UserError

# Lightness rises evenly, so that the picture reads in grey too. Cells left out have a colour of their own.
COLORS = LinearSegmentedColormap.from_list("phi", ["#0a0618", "#571c52", "#c81d51", "#f3835a", "#fbeadc"])
BLANK = "#d9dfeb"

# Inches: the whole is as wide as a paper's text, zoomed cells are about square, and panels with all j are
# wider where they have more columns than the zoomed ones.
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 7.0, 0.54, 0.3, 0.58, 0.36
PANEL, WIDE, ZOOMED, EQUAL = 1.05, 1.6, 1.03, 1.315  # height, and widths
GAP, GROUP_GAP, ROW_GAP, BAR = 0.18, 0.26, 0.21, 0.1
TITLE, LABEL, NUMBER = 11, 9, 6  # points


def layers_to_draw(table: pd.DataFrame, layers: list[int] | None = None) -> list[int]:
    """The rows of the figure: `layers`, else the first and those nearest to ⅓, ⅔ and the whole of the depth.

    Depth is counted over the layers that have both ΔW_q and ΔW_v, so that 96 of them give 1, 32, 64, 96.

    Raises:
        UserError: no layer of the table has both, or not one that was asked for.
    """
    q, v = (set(table.layer[table.projection == projection]) for projection in ("q", "v"))
    present = sorted(q & v)
    if not present:
        found = sorted(set(table.projection))
        raise UserError(f"the adapters adapt {found}, and no layer has both q and v: compare them in Python")
    if missing := sorted(set(layers or []) - set(present)):
        raise UserError(f"layers={layers}: there are q and v in {present}, not in {missing}")
    thirds = {present[max(round(len(present) * third / 3), 1) - 1] for third in range(4)}
    return layers or sorted(thirds)


def ticks(size: int) -> list[int]:
    """Which of 1 to `size` an axis marks: all up to 11; 1, 6, 12, …, 58 of 64, as in the paper."""
    if size <= 11:
        return list(range(1, size + 1))
    return sorted(set(np.linspace(1, 1 + 57 * (size - 1) / 63, 11).astype(int).tolist()))


def draw(table: pd.DataFrame, layers: list[int]) -> Figure:
    """A row per layer: ΔW_q and ΔW_v with all j, then the same zoomed to j up to the smaller rank.

    The first two panels leave out the cells with j < i, the others those with j > i: together they show all.

    Args:
        table: φ of one pair in one basis, with the columns layer, projection, i, j, phi.
        layers: layers of the table that have both ΔW_q and ΔW_v, from top to bottom.
    """
    rank_left, rank_right = int(table.i.max()), int(table.j.max())
    height = TOP + BOTTOM + len(layers) * (PANEL + ROW_GAP) - ROW_GAP
    figure = Figure(figsize=(WIDTH, height))
    expression = rf"$\phi(A_{{r={rank_left}}}, A_{{r={rank_right}}}, i, j)$"
    figure.suptitle(expression, y=1 - 0.08 / height, fontsize=TITLE)
    grid = _grid(figure, len(layers), more_columns=rank_right > rank_left)
    panels = [[figure.add_subplot(grid[row, 2 * n]) for n in range(4)] for row in range(len(layers))]
    for layer, (wide_q, wide_v, zoom_q, zoom_v) in zip(layers, panels, strict=True):
        for projection, wide, zoom in (("q", wide_q, zoom_q), ("v", wide_v, zoom_v)):
            phi = _matrix(table, layer, projection)
            i, j = np.arange(phi.shape[0])[:, None], np.arange(phi.shape[1])
            zoomed = np.s_[:, : min(phi.shape)]
            _fill(wide, phi, left_out=j < i)
            image = _fill(zoom, phi[zoomed], left_out=(j > i)[zoomed])
    _label(panels, layers)
    bar = figure.colorbar(image, cax=figure.add_subplot(grid[:, -1]))
    bar.ax.tick_params(labelsize=NUMBER + 1, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
    return figure


def _grid(figure: Figure, rows: int, more_columns: bool) -> GridSpec:
    """Panels in the columns 0, 2, 4 and 6, the colour bar in column 8; the columns between them are gaps."""
    wide, zoomed = (WIDE, ZOOMED) if more_columns else (EQUAL, EQUAL)
    return figure.add_gridspec(
        nrows=rows,
        ncols=9,
        width_ratios=[wide, GAP, wide, GROUP_GAP, zoomed, GAP, zoomed, GAP, BAR],
        wspace=0,
        hspace=ROW_GAP / PANEL,
        left=LEFT / WIDTH,
        right=1 - RIGHT / WIDTH,
        bottom=BOTTOM / figure.get_figheight(),
        top=1 - TOP / figure.get_figheight(),
    )


def _matrix(table: pd.DataFrame, layer: int, projection: str) -> NDArray[np.float64]:
    """φ of one site; entry [i − 1, j − 1] holds φ(i, j)."""
    site = table[(table.layer == layer) & (table.projection == projection)]
    return site.pivot(index="i", columns="j", values="phi").to_numpy()


def _fill(axes: Axes, phi: NDArray[np.float64], left_out: NDArray[np.bool_]) -> AxesImage:
    rows, columns = phi.shape
    axes.set_facecolor(BLANK)
    axes.spines[:].set_linewidth(0.5)
    axes.tick_params(labelsize=NUMBER, width=0.5, length=1.5, pad=1.5)
    points = 72 / axes.figure.dpi
    axes.set_xticks(ticks(columns), _numbers(ticks(columns), axes.bbox.width * points / columns, room=8))
    axes.set_yticks(ticks(rows), _numbers(ticks(rows), axes.bbox.height * points / rows, room=7))
    cells = np.ma.masked_invalid(np.ma.array(phi, mask=left_out))  # NaN beyond a numerical rank
    edges = (0.5, columns + 0.5, rows + 0.5, 0.5)  # cell (i, j) is centred on its numbers, i downward
    return axes.imshow(cells, COLORS, vmin=0, vmax=1, extent=edges, aspect="auto", interpolation="nearest")


def _numbers(ticks: list[int], cell: float, room: int) -> list[str]:
    """The text at each tick: its number, or every other one where a cell is too narrow (sizes in points)."""
    crowded = any((after - before) * cell < room for before, after in pairwise(ticks))
    return ["" if crowded and n % 2 else str(tick) for n, tick in enumerate(ticks)]


def _label(panels: list[list[Axes]], layers: list[int]) -> None:
    """Titles above the first row, j below the last, i and the layer left of the first column."""
    for axes, projection in zip(panels[0], "qvqv", strict=True):
        axes.set_title(rf"$\Delta W_{projection}$", fontsize=LABEL, pad=4)
    for axes in panels[-1]:
        axes.set_xlabel("$j$", fontsize=LABEL, labelpad=1)
    for (first, *_), layer in zip(panels, layers, strict=True):
        first.set_ylabel("$i$", fontsize=LABEL, labelpad=4, rotation=0, va="center")
        margin = blended_transform_factory(first.figure.dpi_scale_trans, first.transAxes)  # x in inches
        first.text(0.06, 0.5, f"Layer {layer}", transform=margin, fontsize=LABEL, rotation=90, va="center")
