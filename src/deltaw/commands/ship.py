"""`advice=ship`: which cut an analysis writes, and what it says about it."""

from collections.abc import Sequence
from pathlib import Path

from deltaw.advice.answer import Advice
from deltaw.analysis.experiment import arms_of
from deltaw.analysis.ship import CutAdapter
from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory


def cut_to_ship(runs: Sequence[RunDirectory], advice: Advice | None) -> CutAdapter | None:
    """The cut that the advice ships; None where it ships none.

    Raises:
        UserError: the adapters belong to no run, so there is no advice.
    """
    if advice is None:
        raise UserError("advice=ship: adapter folders tell no losses, so that no cut of them is judged: give run=")
    if not (advice.ship and advice.ship.ship and advice.evidence) or advice.ship.better:
        return None
    run, arm = arms_of(runs)[advice.ship.arm]
    return CutAdapter(run.adapter(arm["name"], advice.evidence.step), advice.ship.ship.cut)


def where_it_lies(output: Path, cut: CutAdapter | None) -> str:
    """Where the cut lies and how to load it, or why none is written."""
    if cut is None:
        return "advice=ship writes nothing: no cut is advised."
    folder = output / cut.folder
    if cut.adapter.split:
        return f"{folder} holds the cut; deltaw fold {folder} FOLDED makes it fit the base, which fuses q, k and v."
    return f'{folder} holds the cut: PeftModel.from_pretrained(base, "{folder}") loads it.'
