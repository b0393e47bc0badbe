"""The bases: which subspaces of an arm are compared."""

from collections.abc import Collection, Sequence

from deltaw.analysis.comparable import listed
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Lora

MEANINGS = {
    "A": "the right-singular vectors of A, by falling singular value, as in the paper",
    "update": "the right-singular vectors of A − A₀, which training added to A",
    "input": "the right-singular vectors of ΔW",
    "output": "the left-singular vectors of ΔW",
}
BASES = tuple(MEANINGS)

# Why an adapter has no direction in a basis.
WITHOUT_DIRECTIONS = {"A": "A is 0", "update": "A has not moved", "input": "ΔW is 0", "output": "ΔW is 0"}


def width_in(basis: str, lora: Lora) -> int:
    """Dimension of the space that the directions of a basis lie in."""
    return lora.d_out if basis == "output" else lora.d_in


def choose_bases(adapters: Sequence[Adapter], asked: Collection[str], give_start: str) -> tuple[list[str], list[str]]:
    """The bases to measure, and a sentence for a basis that "all" leaves out.

    Args:
        adapters: "update" needs the start of every one.
        asked: names in `BASES`, or "all".
        give_start: how the caller gives an adapter's start.

    Raises:
        UserError: a basis is unknown, or "update" is named and some adapter has no known start.
    """
    if unknown := sorted(set(asked) - {*BASES, "all"}):
        raise UserError(f"basis={unknown}: choose from {', '.join(BASES)} or all")
    without = [arm.name for arm in adapters if arm.start is None]
    reason = (
        f"The basis update, A − A₀, needs the factors before the first step, and for {listed(without, 4)} they are "
        f"not known: for an adapter folder give {give_start}"
    )
    if "all" in asked:
        return [basis for basis in BASES if basis != "update" or not without], [reason] if without else []
    if "update" in asked and without:
        raise UserError(reason)
    return [basis for basis in BASES if basis in asked], []
