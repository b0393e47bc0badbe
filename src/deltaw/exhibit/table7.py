"""What Table 7 of the LoRA paper (§7.3, App. H.4) shows: how much of W lies in the directions of ΔW."""

from typing import Any

from deltaw.exhibit.fig8 import pairings
from deltaw.exhibit.source import with_titles
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View

__all__ = ["contents", "pairings"]


def contents(_view: View, tables: Tables) -> dict[str, Any]:
    """The amplification of every arm."""
    return {"amplification": with_titles(tables.amplification)}
