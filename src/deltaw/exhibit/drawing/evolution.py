"""Evolution: how the subspaces of an arm settle during training, as φ between its snapshots at each site."""

import re
from itertools import chain, cycle, pairwise, product
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deltaw.exhibit.drawing.heading import MEANINGS, NOTE, SYMBOLS, UNKNOWN, Heading, Source, join_notes, subtitle
from deltaw.exhibit.drawing.panel import LINE, NUMBER, WIDTH
from deltaw.exhibit.drawing.scale import BLANK
from deltaw.exhibit.drawing.texts import BROKEN, apart, label_size, layer_label, update_label

COLORS = ["#571c52", "#e06a2c", "#2a788e", "#7f7f7f"]  # a color per arm, in the order of the table
SETTLED, MOVING = "whole spans, against the last snapshot", "whole spans, against the snapshot before"
LEADING, CHANCE = "φ(1, 1), against the last snapshot", "chance for whole spans"
STYLES: dict[str, dict[str, Any]] = {
    SETTLED: {"linewidth": 1.4},
    MOVING: {"linewidth": 1.1, "linestyle": (0, (1, 1.2))},
    LEADING: {"linewidth": 0.7, "linestyle": (0, (5, 2))},
    CHANCE: {"linewidth": 0.5},
}
MARKERS = {SETTLED: "o", MOVING: "s", LEADING: "D"}  # of a curve with one point, between two snapshots
MOST = 8  # layers, a column each
SHORT = 20  # characters: three arms with short names fit side by side
LEFT, RIGHT, TOP, HEIGHT, GAP, ROW_GAP = 0.68, 0.14, 0.22, 1.1, 0.1, 0.12  # inches
BOTTOM, KEY_ROOM = 0.46, 0.16  # inches: the room below the panels without the legend, and for each line of it


def spread_evenly(layers: list[int]) -> list[int]:
    """All layers up to eight; of more layers eight, evenly spread, with the first and the last."""
    layers = sorted(layers)
    return [layers[n] for n in np.linspace(0, len(layers) - 1, min(len(layers), MOST)).round().astype(int)]


def draw(pairs: pd.DataFrame, source: Source = UNKNOWN) -> Figure:
    """A row per projection and a column per layer: the step to the right, φ from 0 to 1 upward, a color per arm.

    Args:
        pairs: rows of `Comparison.pairs` in one basis: every step of an arm with the last and with the next step.
        source: models and data, for the subtitle.
    """
    present, projections = pairs.layer.unique().tolist(), pairs.projection.unique().tolist()
    layers, colors = spread_evenly(present), dict(zip(pairs.left.unique(), cycle(COLORS), strict=False))
    left_out = f"{len(layers)} of {len(present)} layers, evenly spread" if len(layers) < len(present) else ""
    labels = [update_label(projection) for projection in projections]
    keys = _keys(colors, has_markers=bool((pairs.groupby("left").step_left.nunique() == 1).any()))
    columns = 3 if max(len(str(key.get_label())) for key in keys[: len(colors)]) <= SHORT else 1
    bottom = BOTTOM + ceil(len(keys) / columns) * KEY_ROOM
    figure, panels = _page(_heading(pairs, left_out, source), labels, len(layers), bottom)
    for axes, (projection, layer) in zip(chain(*panels), product(projections, layers), strict=True):
        site = pairs[(pairs.layer == layer) & (pairs.projection == projection)]
        axes.set_facecolor(BLANK if site.empty else "white")  # if it were hidden, so would be the labels of its row
        for arm, rows in site.groupby("left", sort=False):
            _curves(axes, rows, colors[arm])
    _label(panels, layers, labels, last=int(max(pairs.step_left.max(), pairs.step_right.max())))
    figure.legend(handles=keys, ncols=columns, fontsize=NOTE, frameon=False, loc="lower center", borderaxespad=0.2)
    return figure


def _keys(colors: dict[str, str], has_markers: bool) -> list[Line2D]:
    """The keys of the legend: the color of each arm, and the style of each curve."""
    arms = [
        Line2D([], [], color=color, linewidth=3, label=re.sub("^_", " _", name))  # a legend leaves out names with a _
        for name, color in zip(apart(list(colors)), colors.values(), strict=True)
    ]
    styles = {label: style | ({"marker": MARKERS.get(label)} if has_markers else {}) for label, style in STYLES.items()}
    return arms + [Line2D([], [], color="black", markersize=3, label=label, **style) for label, style in styles.items()]


def _heading(pairs: pd.DataFrame, left_out: str, source: Source) -> Heading:
    basis = pairs.basis.iloc[0]
    return Heading(
        rf"$\phi$ between snapshots of one arm, for ${SYMBOLS[basis]}$",
        subtitle(source, pd.concat([pairs.step_left, pairs.step_right]), basis),
        join_notes(f"directions: {MEANINGS[basis]}", left_out),
    )


def _page(heading: Heading, labels: list[str], columns: int, bottom: float) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure with its heading, and its panels: a row for each of `labels`, with `bottom` inches below them."""
    rows, left = len(labels), LEFT + LINE * max(label.count("\n") for label in labels)
    top = heading.height(WIDTH) + TOP
    down = top + rows * (HEIGHT + ROW_GAP) - ROW_GAP + bottom
    across = (WIDTH - left - RIGHT - (columns - 1) * GAP) / columns
    figure = Figure(figsize=(WIDTH, down))
    sides = {"left": left / WIDTH, "right": 1 - RIGHT / WIDTH, "bottom": bottom / down, "top": 1 - top / down}
    gaps = {"wspace": GAP / across, "hspace": ROW_GAP / HEIGHT}
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True, gridspec_kw=sides | gaps)
    heading.write(figure)
    return figure, grid.tolist()


def _curves(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """The curves of one arm at one site."""
    steps = rows[["step_left", "step_right"]].astype(int)
    rows = rows.assign(step=steps.min(axis=1), later=steps.max(axis=1)).sort_values("step")
    following = dict(pairwise(sorted({*rows.step, *rows.later})))
    with_last = rows[rows.later == rows.later.max()]
    with_next = rows[rows.later == rows.step.map(following)]
    for label, x, y in (
        (SETTLED, with_last.step, with_last.phi_corner),
        (MOVING, with_next.later, with_next.phi_corner),
        (LEADING, with_last.step, with_last.phi_first),
    ):  # drawn over the frame, since a curve may run at 0 or 1
        marker = MARKERS[label] if len(x) == 1 else None
        axes.plot(x, y, color=color, label=label, marker=marker, markersize=3, clip_on=False, zorder=3, **STYLES[label])
    axes.axhline(rows.null_corner.max(), color=color, label=CHANCE, clip_on=False, zorder=3, **STYLES[CHANCE])


def _label(panels: list[list[Axes]], layers: list[int], labels: list[str], last: int) -> None:
    """The same axes for all panels, a title above each column, ΔW and φ left of each row."""
    for axes in chain(*panels):
        axes.set(xlim=(0, last), ylim=(0, 1), xticks=[0, last], yticks=[0, 0.5, 1])
        axes.spines[:].set_linewidth(0.5)
        axes.tick_params(labelsize=NUMBER, width=0.5, length=1.5, pad=1.5)
    for axes, layer in zip(panels[0], layers, strict=True):
        axes.set_title(layer_label(layer), fontsize=BROKEN, pad=4)
    for axes in panels[-1]:
        first, end = axes.get_xticklabels()
        first.set_horizontalalignment("left")  # so that no number reaches into the next panel
        end.set_horizontalalignment("right")
        axes.set_xlabel("step", fontsize=NOTE, labelpad=2)
    for (axes, *_), label in zip(panels, labels, strict=True):
        axes.set_ylabel(f"{label}\n$\\phi$", fontsize=label_size(label))
