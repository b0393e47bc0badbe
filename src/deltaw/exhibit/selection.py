"""Every exhibit by its name, and the exhibits that one analysis makes."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from deltaw.analysis.compare import Pairing
from deltaw.errors import UserError
from deltaw.exhibit import evolution, fig3, fig4, fig6, fig7, fig8, loss_by_rank, table6, table7
from deltaw.exhibit.picture import Picture
from deltaw.exhibit.source import source_of
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.run.adapter import Adapter


@dataclass(frozen=True)
class Exhibit:
    """One exhibit, but for its drawing.

    Attributes:
        pairings: the pairs that it needs compared. Raises a UserError with the reason where it cannot be made.
        contents: the arguments of its `draw`, taken from the tables.
        is_grid: it shows φ in cells, and has variants: times chance, and minus control where its cells have one.
        needs_gaussian: it shows φ of two Gaussian matrices.
        needs_base: it measures arms against W, the frozen weight of the base.
    """

    pairings: Callable[[View], list[Pairing]]
    contents: Callable[[View, Tables], dict[str, Any]]
    is_grid: bool = False
    needs_gaussian: bool = False
    needs_base: bool = False


EXHIBITS = {
    "fig3": Exhibit(fig3.pairings, fig3.contents, is_grid=True),
    "fig4": Exhibit(fig4.pairings, fig4.contents, is_grid=True, needs_gaussian=True),
    "fig6": Exhibit(fig6.pairings, fig6.contents, is_grid=True),
    "fig7": Exhibit(fig7.pairings, fig7.contents, is_grid=True),
    "fig8": Exhibit(fig8.pairings, fig8.contents, is_grid=True, needs_base=True),
    "table6": Exhibit(table6.pairings, table6.contents),
    "table7": Exhibit(table7.pairings, table7.contents, needs_base=True),
    "evolution": Exhibit(evolution.pairings, evolution.contents),
    "loss_by_rank": Exhibit(loss_by_rank.pairings, loss_by_rank.contents),
}


@dataclass(frozen=True)
class Selection:
    """The exhibits that one analysis makes.

    Attributes:
        view: what they show.
        pairings: exhibit → the pairs that it needs compared.
        left_out: a sentence for everything that was asked for and is not shown.
    """

    view: View
    pairings: dict[str, list[Pairing]]
    left_out: list[str]


def select(view: View, asked: list[str], earlier: Collection[str] = ()) -> Selection:
    """The exhibits with these names. "all" asks for every exhibit, and leaves out those that cannot be made.

    Args:
        view: what they show.
        asked: names, or "all".
        earlier: names of exhibits to make again, so that they agree with the new tables; left out as with "all".

    Raises:
        UserError: an exhibit that was asked for by its name cannot be made.
    """
    pairings: dict[str, list[Pairing]] = {}
    left_out = list(view.left_out)
    names = [*asked, *earlier]
    for name in EXHIBITS if "all" in asked else dict.fromkeys(name for name in names if name in EXHIBITS):
        try:
            pairings[name] = EXHIBITS[name].pairings(view)
        except UserError as reason:
            if name in asked:
                raise
            left_out.append(f"{name} is left out: {reason}")
    return Selection(view, pairings, left_out)


def pictures(selection: Selection, tables: Tables) -> Iterator[Picture]:
    """A picture of every exhibit, and the variants of a grid; minus-control only where both arms have shadows."""
    for name, pairings in selection.pairings.items():
        exhibit = EXHIBITS[name]
        contents = exhibit.contents(selection.view, tables)
        source = source_of(_shown(selection.view, exhibit, pairings))
        yield Picture(name, contents, source)
        if exhibit.is_grid:
            yield Picture(name, contents, source, "times-chance")
        if "cells" in contents and contents["cells"].control.notna().any():
            yield Picture(name, contents, source, "minus-control")


def _shown(view: View, exhibit: Exhibit, pairings: list[Pairing]) -> list[Adapter]:
    """The adapters that an exhibit shows."""
    subject = view.subject
    if exhibit.needs_base:
        return subject.ranks()
    return [side for pairing in pairings or [subject.pairing] for side in (pairing.left, pairing.right)]
