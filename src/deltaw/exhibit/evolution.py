"""How the subspaces of an arm settle during training: φ between its snapshots, at each site."""

import textwrap
from itertools import chain, cycle, pairwise, product
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deltaw.exhibit import panel
from deltaw.exhibit.panel import BLANK, LABEL, LINE, MEANINGS, NOTE, NUMBER, SYMBOLS, TITLE, WIDTH

COLORS = ["#571c52", "#e06a2c", "#2a788e", "#7f7f7f"]  # of arms, in the order of the table
SETTLED, MOVING = "whole spans, against the last snapshot", "whole spans, against the snapshot before"
LEADING, CHANCE = "φ(1, 1), against the last snapshot", "chance for whole spans"
STYLES: dict[str, dict[str, Any]] = {
    SETTLED: {"linewidth": 1.4},
    MOVING: {"linewidth": 1.1, "linestyle": (0, (1, 1.2))},
    LEADING: {"linewidth": 0.7, "linestyle": (0, (5, 2))},
    CHANCE: {"linewidth": 0.5},
}
MOST = 8  # layers, a column each
SHORT, LONG = 20, 105  # characters: three such names of arms fit side by side, and the longest line by itself
LEFT, RIGHT, TOP, NOTE_ROOM, HEIGHT, GAP, ROW_GAP = 0.68, 0.14, 0.54, 0.16, 1.1, 0.1, 0.12  # inches
BOTTOM, KEY_ROOM = 0.46, 0.16  # inches: without the legend, a line of it


def layers_to_draw(layers: list[int]) -> list[int]:
    """All of them up to eight; of more, eight evenly spread, the first and the last among them."""
    layers = sorted(layers)
    return [layers[n] for n in np.linspace(0, len(layers) - 1, min(len(layers), MOST)).round().astype(int)]


def draw(pairs: pd.DataFrame) -> Figure:
    """A row per projection and a column per layer: the step to the right, φ from 0 to 1 upward, a colour per arm.

    Args:
        pairs: two steps of one arm in each row, in one basis: any step with the last, and with the next.
    """
    present, projections = pairs.layer.unique().tolist(), pairs.projection.unique().tolist()
    layers, colors = layers_to_draw(present), dict(zip(pairs.left.unique(), cycle(COLORS), strict=False))
    chosen = f"{len(layers)} of {len(present)} layers, evenly spread" if len(layers) < len(present) else ""
    labels = [panel.label_of(projection) for projection in projections]
    keys = [Line2D([], [], color=color, linewidth=3, label=textwrap.fill(arm, LONG)) for arm, color in colors.items()]
    keys += [Line2D([], [], color="black", label=label, **style) for label, style in STYLES.items()]
    key_columns = 3 if max(map(len, colors)) <= SHORT else 1
    key_lines = ceil(sum(1 + str(key.get_label()).count("\n") for key in keys) / key_columns)
    figure, panels = _page(pairs.basis.iloc[0], chosen, labels, len(layers), BOTTOM + key_lines * KEY_ROOM)
    for axes, (projection, layer) in zip(chain(*panels), product(projections, layers), strict=True):
        site = pairs[(pairs.layer == layer) & (pairs.projection == projection)]
        axes.set_facecolor(BLANK if site.empty else "white")  # hidden, it would take the labels of its row along
        for arm, rows in site.groupby("left", sort=False):
            _curves(axes, rows, colors[arm])
    _label(panels, layers, labels, last=int(max(pairs.step_left.max(), pairs.step_right.max())))
    figure.legend(handles=keys, ncols=key_columns, fontsize=NOTE, frameon=False, loc="lower center", borderaxespad=0.2)
    return figure


def _page(basis: str, chosen: str, labels: list[str], columns: int, bottom: float) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure with its heading, and its panels: a row for each of `labels`, above `bottom` inches."""
    rows, left = len(labels), LEFT + LINE * max(label.count("\n") for label in labels)
    note = "; ".join(filter(None, [MEANINGS[basis], chosen]))
    top = TOP + NOTE_ROOM * bool(note)
    down = top + rows * (HEIGHT + ROW_GAP) - ROW_GAP + bottom
    across = (WIDTH - left - RIGHT - (columns - 1) * GAP) / columns
    figure = Figure(figsize=(WIDTH, down))
    sides = {"left": left / WIDTH, "right": 1 - RIGHT / WIDTH, "bottom": bottom / down, "top": 1 - top / down}
    gaps = {"wspace": GAP / across, "hspace": ROW_GAP / HEIGHT}
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True, gridspec_kw=sides | gaps)
    figure.suptitle(rf"$\phi$ between snapshots of one arm, on ${SYMBOLS[basis]}$", y=1 - 0.08 / down, fontsize=TITLE)
    figure.text(0.5, 1 - 0.34 / down, note, fontsize=NOTE, ha="center", va="top")
    return figure, grid.tolist()


def _curves(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """One arm at one site."""
    steps = rows[["step_left", "step_right"]].astype(int)
    rows = rows.assign(step=steps.min(axis=1), later=steps.max(axis=1)).sort_values("step")
    following = dict(pairwise(sorted({*rows.step, *rows.later})))
    with_last = rows[rows.later == rows.later.max()]
    with_next = rows[rows.later == rows.step.map(following)]
    for label, x, y in (
        (SETTLED, with_last.step, with_last.phi_corner),
        (MOVING, with_next.later, with_next.phi_corner),
        (LEADING, with_last.step, with_last.phi_first),
    ):  # over the frame, where a curve runs at 0 or 1
        axes.plot(x, y, color=color, label=label, clip_on=False, zorder=3, **STYLES[label])
    axes.axhline(rows.null_corner.max(), color=color, label=CHANCE, clip_on=False, zorder=3, **STYLES[CHANCE])


def _label(panels: list[list[Axes]], layers: list[int], labels: list[str], last: int) -> None:
    """Axes that all panels share, a title above each column, ΔW and φ left of each row."""
    for axes in chain(*panels):
        axes.set(xlim=(0, last), ylim=(0, 1), xticks=[0, last], yticks=[0, 0.5, 1])
        axes.spines[:].set_linewidth(0.5)
        axes.tick_params(labelsize=NUMBER, width=0.5, length=1.5, pad=1.5)
    for axes, layer in zip(panels[0], layers, strict=True):
        axes.set_title(f"Layer {layer}", fontsize=LABEL - 1, pad=4)
    for axes in panels[-1]:
        first, end = axes.get_xticklabels()
        first.set_horizontalalignment("left")  # no number reaches into the next panel
        end.set_horizontalalignment("right")
        axes.set_xlabel("step", fontsize=NOTE, labelpad=2)
    for (axes, *_), label in zip(panels, labels, strict=True):
        axes.set_ylabel(f"{label}\n$\\phi$", fontsize=panel.label_size(label))
