"""What the weights say about adding two adapters: a verdict for each pair, with its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, sqrt

import pandas as pd

from deltaw.analysis.columns import TWO
from deltaw.analysis.merge import over_sites
from deltaw.maths.merge import Products
from deltaw.report.table import table

DUPLICATE = 0.9  # cosine from which two ΔW are one update twice
ALIKE = 0.2  # cosine from which two ΔW agree in part: two seeds of one task have 0.22 to 0.38
CANCEL = -0.1  # cosine up to which one ΔW takes back a tenth of the other, at equal norms
EFFECT = 0.1  # on the inputs that another adapter reads: below it, sums kept 92 % of its gain and more
TIMES_CHANCE, DEVIATIONS = 1.5, 4  # overlap of the inputs, both from which it is more than that of random updates

VERDICTS = {
    "duplicates": "near duplicates: one update twice, so that the sum overshoots; keep one, or average",
    "cancel": "expect interference: each ΔW takes back a part of the other",
    "alike": "partly duplicates: they agree in part, as two seeds of one task do; average them, or measure the sum",
    "shared": "expect interference: one acts on the inputs that the other reads; measure the sum, also at less weight",
    "apart": "merge by addition: neither acts on the inputs that the other reads, or no more than random updates do",
    "zero": "nothing to merge: a ΔW is 0",
}


@dataclass(frozen=True)
class Merge:
    """Two adapters as their sum sees them.

    Attributes:
        sites: number of sites that both adapt.
        cosine: of all ΔW of one adapter, side by side, with those of the other, in [−1, 1]; NaN where one is 0.
        norm_ratio: norm of all ΔW of right over that of left; NaN where left's is 0.
        overlap_input, overlap_output: see `deltaw.maths.merge.Products`; means over the sites where no ΔW is 0, NaN if
            there is none.
        chance_input, chance_output: the same of random directions.
        effect_on_left: size of what right does to the inputs that left reads, left's own being 1, over all sites.
        effect_on_right: size of what left does to the inputs that right reads, right's own being 1.
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
    effect_on_left: float
    effect_on_right: float
    verdict: str


def merges_of(rows: pd.DataFrame) -> list[Merge]:
    """A verdict for each pair in a table with the columns `deltaw.analysis.columns.MERGE`."""
    pairs = rows.groupby(TWO, sort=False, dropna=False)
    return [_merge(str(left), str(right), of_pair) for (left, right, *_), of_pair in pairs]


def _merge(left: str, right: str, rows: pd.DataFrame) -> Merge:
    together, both = over_sites(rows), rows.dropna(subset="cosine")
    means = both[["overlap_input", "chance_input", "overlap_output", "chance_output"]].mean().to_dict()
    on_left, on_right = together.effects
    return Merge(
        left=left,
        right=right,
        sites=len(rows),
        cosine=together.cosine,
        norm_ratio=together.norm_ratio,
        **{str(name): mean for name, mean in means.items()},
        effect_on_left=on_left,
        effect_on_right=on_right,
        verdict=_verdict(together, both),
    )


def _verdict(together: Products, both: pd.DataFrame) -> str:
    """A key of `VERDICTS`, from the products over all sites and the rows of those where no ΔW is 0."""
    if isnan(together.cosine):
        return "zero"
    if together.cosine >= DUPLICATE:
        return "duplicates"
    if together.cosine <= CANCEL:
        return "cancel"
    if together.cosine >= ALIKE:
        return "alike"
    return "shared" if max(together.effects) >= EFFECT and _more_than_random(both) else "apart"


def _more_than_random(both: pd.DataFrame) -> bool:
    """Whether inputs of both have more in common than those of random updates with the same singular values."""
    overlap, chance = both.overlap_input.mean(), both.chance_input.mean()
    deviation = sqrt((both.sd_input**2).sum()) / max(len(both), 1)
    return bool(overlap >= TIMES_CHANCE * chance and overlap >= chance + DEVIATIONS * deviation)


def verdicts(merges: list[Merge]) -> Iterator[str]:
    """A line for each pair."""
    for one in merges:
        numbers = "" if one.verdict == "zero" else f" ({_numbers(one)})"
        yield f"{one.left} + {one.right}: {VERDICTS[one.verdict]}{numbers}."


def _numbers(one: Merge) -> str:
    return (
        f"cosine {_signed(one.cosine)}; effect on the inputs of the first {one.effect_on_left:.2g}, on those of the "
        f"second {one.effect_on_right:.2g}, its own being 1; norms 1 to {one.norm_ratio:.2g}"
    )


def section(merges: list[Merge]) -> str:
    """The verdicts and their numbers in Markdown."""
    head = ["left", "right", "sites", "cosine of ΔW", "norm of right / left", "effect on left", "effect on right"]
    head += ["input overlap", "random", "output overlap", "random"]
    rows = [
        [
            one.left,
            one.right,
            one.sites,
            _signed(one.cosine),
            f"{one.norm_ratio:.3g}",
            f"{one.effect_on_left:.3f}",
            f"{one.effect_on_right:.3f}",
            f"{one.overlap_input:.3f}",
            f"{one.chance_input:.3f}",
            f"{one.overlap_output:.3f}",
            f"{one.chance_output:.3f}",
        ]
        for one in merges
    ]
    meaning = (
        "What follows from the weights for ΔW_left + ΔW_right; only the loss of the sum decides. The cosine, the norms "
        "and the effects are those of all sites together. The effect on left is the size of what right does to the "
        "inputs that left reads, left's own being 1. The overlap is the mean cos² between directions of both, each "
        "with its share of ‖ΔW‖², on average over the sites. `merge.parquet` has every site."
    )
    return "\n\n".join([*(f"- {line}" for line in verdicts(merges)), meaning, table(head, rows)])


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
