"""The heading of every figure: a title, a line that says what was compared, and a note."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing.scale import Scale
from deltaw.exhibit.drawing.texts import apart, wrap

TITLE, SUBTITLE, NOTE = 11, 8, 7  # points
ABOVE, TITLE_ROOM, SUBTITLE_ROOM, NOTE_ROOM, SIDE = 0.08, 0.24, 0.15, 0.13, 0.15  # inches: lines, and the sides
NOTE_COLOR = "#404040"

Source = Mapping[str, list[str]]  # "model" and "data" → their names
UNKNOWN: Source = {}

# Basis → the symbol of the compared matrix in a title, and the directions that are compared.
SYMBOLS = {"A": "A", "update": r"\Delta A", "input": r"\Delta W", "output": r"\Delta W"}
MEANINGS = {
    "A": "right-singular vectors of A",
    "update": "right-singular vectors of ΔA = A − A₀ (what training added)",
    "input": "right-singular vectors of ΔW (its input side)",
    "output": "left-singular vectors of ΔW (its output side)",
}


@dataclass(frozen=True)
class Heading:
    """What stands above the panels of a figure, or above a table.

    Attributes:
        title: one line.
        subtitle: model, data, step and basis, as far as they are known.
        note: how to read the figure; "" for nothing.
    """

    title: str
    subtitle: list[str]
    note: str = ""

    def height(self, width: float) -> float:
        """The inches that it takes at the top of a page of `width` inches."""
        subtitle, note = self._lines(width)
        return ABOVE + TITLE_ROOM + SUBTITLE_ROOM * len(subtitle) + NOTE_ROOM * len(note)

    def write(self, figure: Figure) -> None:
        """Write it at the top of a figure, whose size is known."""
        width, height = figure.get_size_inches()
        subtitle, note = self._lines(width)
        below = ABOVE + TITLE_ROOM
        figure.suptitle(self.title, y=1 - ABOVE / height, fontsize=TITLE)
        figure.text(0.5, 1 - below / height, "\n".join(subtitle), fontsize=SUBTITLE, ha="center", va="top")
        below += SUBTITLE_ROOM * len(subtitle)
        figure.text(0.5, 1 - below / height, "\n".join(note), fontsize=NOTE, ha="center", va="top", color=NOTE_COLOR)

    def _lines(self, width: float) -> tuple[list[str], list[str]]:
        """The lines of the subtitle and of the note."""
        room = width - 2 * SIDE
        return wrap(self.subtitle, room, SUBTITLE, between=" · "), wrap(self.note.split(), room, NOTE)


def subtitle(source: Source, steps: "pd.Series[int]", basis: str = "") -> list[str]:
    """Model, data, step and basis.

    Args:
        source: the names of the models and data sets.
        steps: of all that is shown; <NA> outside of a run.
        basis: a name in `MEANINGS`; "" for none.
    """
    names = [f"{word} {name}" for word, found in source.items() for name in apart(found)]
    return [*names, *_steps(steps), *([f"basis {basis}"] if basis else [])]


def heading_of_pair(cells: pd.DataFrame, scale: Scale, source: Source) -> Heading:
    """The heading of a figure of one pair in one basis: the note gives the arms, their directions and the scale."""
    cell = cells.iloc[0]
    symbol, steps = SYMBOLS[cell.basis], pd.concat([cells.step_left, cells.step_right])
    left, right = ranks(cells.rank_left), ranks(cells.rank_right)
    prime = r"^{\prime}" if left == right else ""
    title = rf"$\phi({symbol}_{{r={left}}}, {symbol}_{{r={right}}}{prime}, i, j)$" + scale.title
    names = apart([cell.left, cell.right])
    if len(_different(steps)) > 1:
        names = [f"{name} (step {step})" for name, step in zip(names, (cell.step_left, cell.step_right), strict=True)]
    note = join_notes(f"$i$: {names[0]}; $j$: {names[1]}", f"directions: {MEANINGS[cell.basis]}", scale.meaning)
    return Heading(title, subtitle(source, steps, cell.basis), note)


def join_notes(*notes: str) -> str:
    """One line of all notes that are not empty."""
    return "; ".join(filter(None, notes))


def ranks(numbers: "pd.Series[int]") -> str:
    """The rank, or from the smallest to the largest, in a formula."""
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else rf"{low}\mathrm{{\ to\ }}{high}"


def _different(steps: "pd.Series[int]") -> list[int]:
    return sorted(int(step) for step in steps.dropna().unique())


def _steps(steps: "pd.Series[int]") -> list[str]:
    found = _different(steps)
    if len(found) > 2:
        return [f"steps {found[0]} to {found[-1]}"]
    return [f"step{'s' * (len(found) - 1)} {' and '.join(map(str, found))}"] if found else []
