"""Texts of figures: names that may be long or hold any character, labels of matrices, and lines that fit."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from os.path import commonprefix

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextPath

MOST, KEPT = 36, 12  # characters of a name, and of the beginning that long names share
LABEL, BROKEN, CHARACTERS = 9, 8, 17  # a label: its points, those of several lines, and the characters of such a line
BREAKS = "/-_. "  # where a name may be cut


def apart(names: Sequence[str]) -> list[str]:
    """The names without the folders that all share, each in at most MOST characters, as matplotlib reads text.

    Where one is longer, all lose the middle of the beginning that they share; a name that is still longer loses its own
    middle. Characters without a glyph become �.
    """
    names = [_drawable(name.rstrip("/") or name) for name in names]
    folders = _shared(names, "/")
    names = [name[folders:] for name in names]
    shared = _shared(names, BREAKS)
    if max(map(len, names), default=0) > MOST and shared > KEPT:
        names = [f"{name[:KEPT]}…{name[shared:]}" for name in names]
    return [_cut(name).replace("$", r"\$") for name in names]


def short(name: str) -> str:
    """One name in at most MOST characters: see `apart`."""
    return apart([name])[0]


@cache
def inches(text: str, points: int) -> float:
    """The width of a line of text."""
    return float(TextPath((0, 0), text, size=points).get_extents().width) / 72 if text else 0.0


def wrap(words: Iterable[str], width: float, points: int, between: str = " ") -> list[str]:
    """Words in lines of at most `width` inches; a word that is wider has a line of its own."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{between}{word}" if lines else word
        if lines and inches(longer, points) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def math_label(symbol: str, projection: str) -> str:
    """The matrix `symbol` of a projection in one line: W_q, with an upright subscript for a name, or "W of" a path."""
    if projection.isascii() and projection.isidentifier():
        if len(projection) == 1 and projection != "_":
            return f"${symbol}_{projection}$"
        if len(projection) < CHARACTERS:
            upright = projection.replace("_", r"\_")
            return rf"${symbol}_\mathrm{{{upright}}}$"
    plain = symbol.replace(r"\Delta ", "Δ")
    return f"{plain} of {short(projection)}"


def update_label(projection: str) -> str:
    """ΔW of a projection as a label: a title like "decoder cross q" as it is, a path broken into lines at its dots."""
    label = math_label(r"\Delta W", projection)
    if label.startswith("$"):
        return label
    label = short(projection) if " " in projection else label
    lines = textwrap.wrap(label.replace(".", ". "), CHARACTERS, break_on_hyphens=False)
    return "\n".join(lines).replace(". ", ".")


def layer_label(layer: int) -> str:
    """A layer as a label; layer 0 stands for the modules outside of layers."""
    return f"Layer {layer}" if layer else "No layer"


def label_size(label: str) -> int:
    """The font size of a label in points: smaller for several lines, and where it is no formula."""
    return BROKEN if "\n" in label or "$" not in label else LABEL


def _shared(names: list[str], breaks: str) -> int:
    """The length of what several names begin with, up to the last of the characters `breaks` in it."""
    shared = commonprefix(names) if len(set(names)) > 1 else ""  # noqa: RUF071
    return max(shared.rfind(character) for character in breaks) + 1


def _cut(name: str) -> str:
    half = MOST // 2
    return name if len(name) <= MOST else f"{name[:half]}…{name[1 - half :]}"


def _drawable(name: str) -> str:
    drawable = (character if character.isprintable() and ord(character) in _glyphs() else "�" for character in name)
    return re.sub("�+", "�", "".join(drawable))


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
