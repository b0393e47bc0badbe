"""Loss against rank: trained arms over their seeds, cuts of the largest with intervals, the base and controls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deltaw.exhibit.drawing.heading import NOTE, UNKNOWN, Heading, Source, join_notes, subtitle
from deltaw.exhibit.drawing.panel import NUMBER, WIDTH
from deltaw.exhibit.drawing.texts import LABEL, short

ARMS, CUTS, BASE, CONTROL = "#571c52", "#e06a2c", "#404040", "#2a788e"
TRAINED: dict[str, Any] = {"color": ARMS, "marker": "o", "linewidth": 1.2, "markersize": 5, "capsize": 2}
CUT: dict[str, Any] = {"color": CUTS, "marker": "s", "linewidth": 1, "markersize": 4.5, "capsize": 2}
STYLES = {"shuffled": (0, (5, 2)), "random": (0, (1, 1.2)), "frozen_a": (0, (6, 2, 1, 2))}  # of controls
LEFT, RIGHT, TOP, HEIGHT, BOTTOM, GAP = 0.62, 0.14, 0.24, 2.3, 0.72, 0.62  # inches
ROOM = 0.08  # share of the range of losses, above and below


def draw(losses: pd.DataFrame, unit: str, examples: int, steps: Sequence[int] = (), source: Source = UNKNOWN) -> Figure:
    """Two panels: all losses from the base down, and the arms and cuts by themselves; the rank doubles to the right.

    Args:
        losses: columns of `deltaw.advice.by_rank.COLUMNS`.
        unit: what a loss is a mean over, token or row.
        examples: number of judged examples.
        steps: of the arms, for the subtitle.
        source: models and data, for the subtitle.
    """
    arms, cuts = losses[losses.kind == "arm"], losses[losses.kind == "cut"]
    seeds = arms.groupby("rank").size().max()
    heading = Heading(
        "Loss by rank",
        subtitle(source, pd.Series(steps, dtype=int)),
        join_notes(
            f"{examples:,} judged examples, by which nothing was chosen",
            "arms: mean over seeds, bars from lowest to highest" if seeds > 1 else "",
            "cuts: 95 % intervals of the difference to the uncut arm" if len(cuts) else "",
        ),
    )
    top = heading.height(WIDTH) + TOP
    down, across = top + HEIGHT + BOTTOM, (WIDTH - LEFT - RIGHT - GAP) / 2
    figure = Figure(figsize=(WIDTH, down))
    sides = {"left": LEFT / WIDTH, "right": 1 - RIGHT / WIDTH, "bottom": BOTTOM / down, "top": 1 - top / down}
    whole, zoomed = figure.subplots(1, 2, gridspec_kw=sides | {"wspace": GAP / across})
    heading.write(figure)
    for axes in (whole, zoomed):
        _points(axes, arms, cuts)
        _name_axes(axes, sorted({*arms["rank"], *cuts["rank"]}))
    _lines(whole, losses)
    whole.set_ylabel(f"judged loss (nats per {unit})", fontsize=LABEL - 1)
    whole.set_title("with the base", fontsize=NOTE + 1, pad=4)
    zoomed.set_title("arms and cuts alone", fontsize=NOTE + 1, pad=4)
    _limit(zoomed, pd.concat([arms.loss, cuts.loss, cuts.low, cuts.high]))
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(
        handles, labels, ncols=min(len(labels), 4), fontsize=NOTE, frameon=False, loc="lower center", borderaxespad=0.2
    )
    return figure


def _points(axes: Axes, arms: pd.DataFrame, cuts: pd.DataFrame) -> None:
    """The trained arms and the cuts, each with its bars."""
    by_rank = arms.groupby("rank").loss
    mean = by_rank.mean()
    bars = np.stack([mean - by_rank.min(), by_rank.max() - mean]) if (by_rank.size() > 1).any() else None
    axes.errorbar(mean.index, mean, yerr=bars, label="trained at this rank", zorder=3, **TRAINED)
    if len(cuts):
        name = short(cuts.arm.iloc[0])
        bars = np.stack([cuts.loss - cuts.low, cuts.high - cuts.loss])
        axes.errorbar(
            cuts["rank"], cuts.loss, yerr=bars, label=f"{name} cut to this rank", mfc="white", zorder=2, **CUT
        )


def _lines(axes: Axes, losses: pd.DataFrame) -> None:
    """The base and each control as a level line."""
    base = losses[losses.kind == "base"].loss.mean()
    axes.axhline(base, color=BASE, linewidth=1, label="base", zorder=1)
    controls = losses[losses.kind.isin(STYLES)]
    for kind, rank, loss in zip(controls.kind, controls["rank"], controls.loss, strict=True):
        label = f"control {kind}, r={rank}"
        axes.axhline(loss, color=CONTROL, linewidth=1, linestyle=STYLES[kind], label=label, zorder=1)


def _limit(axes: Axes, losses: "pd.Series[float]") -> None:
    low, high = losses.min(), losses.max()
    room = ROOM * (high - low) or ROOM
    axes.set_ylim(low - room, high + room)


def _name_axes(axes: Axes, ranks: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(ranks[0] / 1.3, ranks[-1] * 1.3)
    axes.set_xticks(ranks, labels=[str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlabel("rank", fontsize=LABEL - 1, labelpad=2)
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.5)
    axes.tick_params(labelsize=NUMBER + 1, width=0.5, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_linewidth(0.5)
