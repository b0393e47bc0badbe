"""What an analysis has compared and made, for `tables.json`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deltaw.analysis.columns import TWO
from deltaw.exhibit.selection import Selection
from deltaw.exhibit.tables import Tables
from deltaw.run.adapter import Adapter


def record(selection: Selection, tables: Tables, files: Iterable[str]) -> dict[str, Any]:
    """The runs, the pairs and bases that the tables hold, the exhibits made from them, and the names of all files."""
    view, pairs = selection.view, tables.comparison.pairs
    compared = pairs[TWO].drop_duplicates().astype(object)
    return {
        "runs": [str(run.path.absolute()) for run in view.subject.runs],
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


def is_of(record: dict[str, Any] | None, left: Adapter, right: Adapter, folder: Path) -> bool:
    """Whether the record in `folder`, perhaps by an older version, is of these two adapters, at whatever step."""
    sides = [((record or {}).get("left"), left), ((record or {}).get("right"), right)]
    return all(isinstance(recorded, dict) and _is_side(recorded, adapter, folder) for recorded, adapter in sides)


def _is_side(recorded: dict[str, Any], adapter: Adapter, folder: Path) -> bool:
    """Whether a side is this arm or this folder. A run may have moved since then, alone or with `folder` in it."""
    if not adapter.origin or not recorded.get("run"):
        same = _plain(recorded.get("folder")) == _plain(adapter.folder)
        return same and not adapter.origin and not recorded.get("run")
    then, now = _plain(recorded["run"]), _plain(adapter.origin.run)
    moved = then.name == now.name and not os.path.exists(then)  # noqa: PTH110 (Path.exists fails for what is no path)
    in_this_run = _plain(folder).parent == now
    return recorded.get("arm") == adapter.origin.arm and (then == now or moved or in_this_run)


def _plain(path: object) -> Path:
    """An absolute path without `..`; a broken record may hold what is no path."""
    return Path(os.path.normpath(Path(str(path)).absolute()))


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
