"""Tables as figures: rules and no grid, names to the left, numbers aligned."""

from math import floor, inf, isfinite, log10

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from deltaw.exhibit.drawing.heading import NOTE, Heading
from deltaw.exhibit.drawing.panel import WIDTH
from deltaw.exhibit.drawing.texts import inches, wrap

MARGIN, ROW = 0.2, 0.18  # inches: each side of the page, the height of a line
NARROW, BROAD = 0.1, 0.32  # inches: the least and the largest gap between two columns
TEXT = 8  # points
HEAVY, LIGHT = 0.9, 0.5  # points: the weights of rules


class Sheet:
    """A table that is written line by line, from the top down.

    Args:
        heading: what stands above the table.
        rows: every line with a text per column, to measure the widths of the columns.
    """

    def __init__(self, heading: Heading, rows: list[list[str]]) -> None:
        self.widths = [max(inches(text, TEXT) for text in column) for column in zip(*rows, strict=True)]
        spaces = len(self.widths) - 1
        gap = min(max((WIDTH - 2 * MARGIN - sum(self.widths)) / max(spaces, 1), NARROW), BROAD)
        table = sum(self.widths) + spaces * gap
        self.page = max(WIDTH, table + 2 * MARGIN)
        self.left = (self.page - table) / 2
        self.rights = self.left + np.cumsum(self.widths) + gap * np.arange(spaces + 1)
        self.figure = Figure()
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, self.page))  # in inches, from the left and top
        self.axes.set_axis_off()
        self.heading = heading
        self.y = heading.height(self.page) + 0.05

    def row(self, texts: list[str]) -> list[Text]:
        """A line with a text in each column: the first to the left, the others to the right."""
        self.y += ROW
        ends = [(self.left, "left"), *((right, "right") for right in self.rights[1:])]
        return [
            self.axes.text(x, self.y, text, fontsize=TEXT, ha=side, va="baseline")
            for text, (x, side) in zip(texts, ends, strict=False)
        ]

    def spanning(self, text: str, first: int, last: int) -> None:
        """A line with one text over the columns `first` to `last`, counted from 0, and a rule under it."""
        self.y += ROW
        ends = self.rights[first] - self.widths[first], self.rights[last]
        self.axes.text(sum(ends) / 2, self.y, text, fontsize=TEXT, ha="center", va="baseline")
        self.axes.plot(ends, [self.y + 0.4 * ROW] * 2, color="black", linewidth=LIGHT)
        self.y += 0.2 * ROW

    def rule(self, weight: float) -> None:
        """A rule over the whole width."""
        self.y += 0.4 * ROW
        self.axes.plot([self.left, self.rights[-1]], [self.y] * 2, color="black", linewidth=weight)
        self.y += 0.1 * ROW

    def finish(self, note: str) -> Figure:
        """The figure, with `note` in small type under the table."""
        lines = wrap(note.split(), self.rights[-1] - self.left, NOTE)
        self.axes.text(self.left, self.y + 0.1, "\n".join(lines), fontsize=NOTE, va="top", linespacing=1.3)
        down = self.y + 0.25 + 0.14 * len(lines)
        self.axes.set_ylim(down, 0)
        self.figure.set_size_inches(self.page, down)
        self.heading.write(self.figure)
        return self.figure


def numbers(values: "pd.Series[float]", least: int) -> list[str]:
    """All values with the same number of decimals, at least `least` and at most 5; "–" for NaN and infinity.

    There are as many decimals as show two digits of the smallest value.
    """
    smallest = min((abs(value) for value in values if isfinite(value) and value), default=inf)
    decimals = min(max(least, 1 - floor(log10(smallest))), 5) if isfinite(smallest) else least
    return [f"{value:.{decimals}f}" if isfinite(value) else "–" for value in values]
