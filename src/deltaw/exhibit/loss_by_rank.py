"""What the figure of losses shows: judged losses of trained arms and of cuts by rank, beside the base and controls."""

from typing import Any

from deltaw.advice.by_rank import judged_in, losses_by_rank
from deltaw.analysis.compare import Pairing
from deltaw.errors import UserError
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View


def pairings(view: View) -> list[Pairing]:
    """None: losses are recorded in the runs.

    Raises:
        UserError: there is no run, or no arm of its runs can be judged.
    """
    runs = view.subject.runs
    if not runs:
        left, right = view.subject.left, view.subject.right
        raise UserError(
            f"judged losses are recorded in runs, and {left.name} and {right.name} have none: compare arms of a run"
        )
    judged_in(runs)
    return []


def contents(view: View, _tables: Tables) -> dict[str, Any]:
    """The losses of all judged arms, the number of examples and of their groups, and the step."""
    runs = view.subject.runs
    judged = judged_in(runs)
    return {
        "losses": losses_by_rank(judged),
        "unit": runs[0].unit,
        "examples": len(judged.labels),
        "steps": [judged.step],
    }
