"""What the colours of φ mean: φ itself, φ as a multiple of chance, or φ less φ of the control pair."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import ceil, floor

import pandas as pd
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize

from deltaw.exhibit.colors import EXCESS, PHI

BLANK = "#d9dfeb"  # cells that are left out
COLORS = LinearSegmentedColormap.from_list("phi", PHI).with_extremes(bad=BLANK)
# Blank is grey, since pale blue is just below 0.
DIVERGING = LinearSegmentedColormap.from_list("excess", EXCESS).with_extremes(bad="#c0c0c0")


@dataclass(frozen=True)
class Scale:
    """What the colours of φ mean.

    Attributes:
        title: what the title of a figure says of it, after φ; "" for nothing.
        label: the text above the colour bar.
        meaning: what φ is divided by or lessened by, for the note; "" for nothing.
        colors: the colour of cells without a number is its bad one.
        values: cells (columns phi, null_mean and control) → the numbers that colours stand for; NaN stays NaN.
        norm: all numbers that are shown, and the two ends of the paper's bar → the range of this bar.
    """

    title: str
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
PAPER = Scale("", "", "", COLORS, lambda cells: cells.phi, _paper_range)
TIMES_CHANCE = Scale(
    ": times chance",
    "φ / chance",
    "chance: φ of random subspaces",
    COLORS,
    lambda cells: (cells.phi / cells.null_mean).clip(lower=1),
    _range_from_chance,
)
MINUS_CONTROL = Scale(
    " minus control",
    "φ − control",
    "control: φ of both arms' shadows, which have nothing to learn; arms of one seed also share the order of examples",
    DIVERGING,
    lambda cells: cells.phi - cells.control,
    _range_around_zero,
)
SCALES = {"": PAPER, "times-chance": TIMES_CHANCE, "minus-control": MINUS_CONTROL}
