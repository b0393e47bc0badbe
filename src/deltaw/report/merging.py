"""What the weights say about adding two adapters: a verdict for each pair, with its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import pandas as pd

from deltaw.analysis.merge import over_sites
from deltaw.report.table import table

DUPLICATE = 0.9  # cosine from which two ΔW are one update twice
ALIKE = 0.2  # cosine from which two ΔW that share directions agree there; two seeds of a task have 0.26 and more
CANCEL = -0.1  # cosine up to which one ΔW takes back a tenth of the other, at equal norms
TIMES_CHANCE = 1.5  # overlap on both sides from which two ΔW work in the same place; random ones stay below 1.2

VERDICTS = {
    "duplicates": "near duplicates: their sum is one update at about twice its size; keep one, or average",
    "cancel": "expect interference: each ΔW takes back a part of the other",
    "alike": "partly duplicates: they agree on what they share, as two seeds of one task do; the sum does little harm",
    "shared": "expect interference: both ΔW read and write shared directions, and do not agree there",
    "apart": "merge by addition: on at least one side they share no more directions than random ones",
    "zero": "nothing to merge: a ΔW is 0",
}


@dataclass(frozen=True)
class Merge:
    """Two adapters as their sum sees them; overlaps and chance are means over the sites where both ΔW are not 0.

    Attributes:
        sites: number of sites that both adapt.
        cosine: of all ΔW of one adapter, side by side, with those of the other, in [−1, 1]; NaN where one is 0.
        norm_ratio: norm of all ΔW of right over that of left; NaN where left's is 0.
        overlap_input, overlap_output: φ between all directions of both ΔW, in [0, 1].
        chance_input, chance_output: the same of random subspaces.
        verdict: a key of `VERDICTS`.
    """

    left: str
    right: str
    sites: int
    cosine: float
    norm_ratio: float
    overlap_input: float
    chance_input: float
    overlap_output: float
    chance_output: float
    verdict: str


def merges_of(rows: pd.DataFrame) -> list[Merge]:
    """A verdict for each pair in a table with the columns `deltaw.analysis.columns.MERGE`."""
    pairs = rows.groupby(["left", "right", "step_left", "step_right"], sort=False, dropna=False)
    return [_merge(str(left), str(right), of_pair) for (left, right, *_), of_pair in pairs]


def _merge(left: str, right: str, rows: pd.DataFrame) -> Merge:
    together = over_sites(rows)
    means = rows[["overlap_input", "chance_input", "overlap_output", "chance_output"]].mean()
    input_, chance_input, output, chance_output = means.tolist()
    beyond = min(input_ / chance_input, output / chance_output)
    verdict = _verdict(together.cosine, beyond)
    numbers = (together.cosine, together.norm_ratio, input_, chance_input, output, chance_output)
    return Merge(left, right, len(rows), *numbers, verdict)


def _verdict(cosine: float, times_chance: float) -> str:
    if isnan(cosine):
        return "zero"
    if cosine >= DUPLICATE:
        return "duplicates"
    if cosine <= CANCEL:
        return "cancel"
    if times_chance < TIMES_CHANCE:
        return "apart"
    return "alike" if cosine >= ALIKE else "shared"


def verdicts(merges: list[Merge]) -> Iterator[str]:
    """A line for each pair."""
    for one in merges:
        numbers = "" if one.verdict == "zero" else f" ({_numbers(one)})"
        yield f"{one.left} + {one.right}: {VERDICTS[one.verdict]}{numbers}."


def _numbers(one: Merge) -> str:
    overlaps = (
        f"{side} overlap {overlap:.3f}, chance {chance:.3f}"
        for side, overlap, chance in (
            ("input", one.overlap_input, one.chance_input),
            ("output", one.overlap_output, one.chance_output),
        )
    )
    return f"{'; '.join(overlaps)}; cosine {_signed(one.cosine)}; norms 1 to {one.norm_ratio:.2g}"


def section(merges: list[Merge]) -> str:
    """The verdicts and their numbers in Markdown."""
    head = ["left", "right", "sites", "cosine of ΔW", "norm of right / left"]
    head += ["input overlap", "random", "output overlap", "random"]
    rows = [
        [
            one.left,
            one.right,
            one.sites,
            _signed(one.cosine),
            f"{one.norm_ratio:.3g}",
            f"{one.overlap_input:.3f}",
            f"{one.chance_input:.3f}",
            f"{one.overlap_output:.3f}",
            f"{one.chance_output:.3f}",
        ]
        for one in merges
    ]
    meaning = (
        "What follows from the weights for ΔW_left + ΔW_right; only the loss of the sum decides. The cosine and the "
        "norms are those of all sites together. The overlap is φ between all directions of both ΔW, on average over "
        "the sites. `merge.parquet` has every site."
    )
    return "\n\n".join([*(f"- {line}" for line in verdicts(merges)), meaning, table(head, rows)])


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
