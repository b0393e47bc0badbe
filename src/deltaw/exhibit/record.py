"""What an analysis has compared and made, for `tables.json`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deltaw.exhibit.selection import Selection
from deltaw.exhibit.tables import Tables
from deltaw.run.adapter import Adapter


def record(selection: Selection, tables: Tables, files: Iterable[str]) -> dict[str, Any]:
    """The pairs and bases that the tables hold, the exhibits made from them, and the names of all files."""
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
        "files": sorted(files),
    }


def is_of(record: dict[str, Any] | None, left: Adapter, right: Adapter) -> bool:
    """Whether a record, perhaps by an older version, is of these two adapters, at whatever step."""
    sides = [(record or {}).get(side) for side in ("left", "right")]
    return [_place(side) for side in sides if isinstance(side, dict)] == [
        _place(_source(side)) for side in (left, right)
    ]


def _place(source: dict[str, Any]) -> tuple[str, Any] | Path:
    """The arm and the name of its run, which may have moved; else the adapter's folder."""
    if source.get("run"):
        return Path(str(source["run"])).name, source.get("arm")
    return Path(str(source.get("folder")))


def _source(adapter: Adapter) -> dict[str, Any]:
    """Where an adapter comes from. What only a run records is None outside of a run."""
    origin = adapter.origin
    return {
        "name": adapter.name,
        "folder": str(adapter.folder.absolute()),
        "base": adapter.base,
        "run": str(origin.run.absolute()) if origin else None,
        "arm": origin.arm if origin else None,
        "step": origin.step if origin else None,
        "base_hash": origin.base_hash if origin else None,
    }
