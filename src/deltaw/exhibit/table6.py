"""What Table 6 of the LoRA paper (§7.2) shows: the validation losses of all arms."""

from typing import Any

from deltaw.analysis.compare import Pairing
from deltaw.errors import UserError
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """None: losses are recorded in the runs.

    Raises:
        UserError: no run has recorded losses.
    """
    left, right = view.subject.left, view.subject.right
    if not len(view.subject.losses):
        raise UserError(
            f"validation losses are recorded in runs, and {left.name} and {right.name} have none: compare arms of a run"
        )
    return []


def contents(view: View, tables: Tables) -> dict[str, Any]:
    """The losses of all arms, and the steps up to which they were measured."""
    origins = [side.origin for side in (view.subject.left, view.subject.right)]
    return {"losses": tables.losses, "steps": [origin.step for origin in origins if origin]}
