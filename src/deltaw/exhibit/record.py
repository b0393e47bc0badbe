"""What an analysis has compared and made, for `tables.json`."""

from typing import Any

from deltaw.exhibit.selection import Selection
from deltaw.exhibit.tables import Tables
from deltaw.run.adapter import Adapter


def record(selection: Selection, tables: Tables) -> dict[str, Any]:
    """The pairs and bases that the tables hold, and the exhibits made from them."""
    view, pairs = selection.view, tables.comparison.pairs
    compared = pairs[["left", "right", "step_left", "step_right"]].drop_duplicates().astype(object)
    return {
        "left": _source(view.subject.left),
        "right": _source(view.subject.right),
        "pairs": compared.where(compared.notna(), None).to_dict("records"),
        "bases": list(dict.fromkeys(pairs.basis)),
        "exhibits": list(selection.pairings),
        "left_out": selection.left_out,
        "layers": view.layers,
        "middle": view.middle,
        "projections": view.projections,
        "remarks": tables.comparison.remarks,
    }


def _source(adapter: Adapter) -> dict[str, Any]:
    """Where an adapter comes from. What only a run records is None outside of a run."""
    origin = adapter.origin
    return {
        "name": adapter.name,
        "folder": str(adapter.folder),
        "base": adapter.base,
        "run": str(origin.run) if origin else None,
        "arm": origin.arm if origin else None,
        "step": origin.step if origin else None,
        "base_hash": origin.base_hash if origin else None,
    }
