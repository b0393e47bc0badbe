"""How often a cut is shipped that should not be: the test of `deltaw.advice.ship` on the real differences of a run.

deltaw train
python benchmarks/ship_level.py runs/bundled-calls-r8-s0_r64-s0

For each cut k the judged losses are recentred: the contrast (cut − uncut) − margin · (base − uncut) is exactly 0 at k,
the least cost that is too much, and every larger cut is far inside the margin. Each analysis draws n groups of examples
with replacement. 'Ship k' is then false, and the test allows it in 5 % of analyses.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markdown_table import in_markdown
from numpy.typing import NDArray
from results_file import RESULTS, Results, measured_on

from deltaw.advice.judged import Judged, JudgedArm, judged_of, judged_rows
from deltaw.advice.recipes import best, recipes_of
from deltaw.advice.ship import ship_of
from deltaw.run.directory import RunDirectory

MARGIN = 0.01
SIZES = (128, 500, 1000)
ALLOWED = 0.07  # 5 % and what a t-test with skewed differences may add


def recentred(judged: Judged, arm: JudgedArm, cut: int) -> JudgedArm:
    """The arm with a contrast of 0 at the cut, and of minus the gain at every larger cut; smaller ones are left out."""
    gain = arm.base - arm.uncut

    def shifted(size: int, mean: float) -> NDArray[np.float64]:
        """The losses of a cut, shifted by label so that its contrast is `mean`."""
        now = judged.ratios(arm.cuts[size] - arm.uncut - MARGIN * gain).means[0]
        return arm.cuts[size] - judged.labels * (now - mean)

    inside = -float(judged.ratios(gain).means[0])
    larger = {size: shifted(size, inside) for size in arm.cuts if size > cut}
    return replace(arm, cuts=larger | {cut: shifted(cut, 0.0)})


def false_ships(judged: Judged, arm: JudgedArm, size: int, draws: int) -> float:
    """The share of analyses of `size` groups, drawn with replacement, that ship the smallest cut of the arm."""
    draw = np.random.default_rng(size)
    smallest = min(arm.cuts)
    shipped = [ship_of(*resampled(judged, arm, draw, size), MARGIN) for _ in range(draws)]
    return float(np.mean([one is not None and one.ship is not None and one.ship.cut == smallest for one in shipped]))


def resampled(judged: Judged, arm: JudgedArm, draw: np.random.Generator, size: int) -> tuple[Judged, list[JudgedArm]]:
    """So many groups of examples; one that is drawn twice counts as two."""
    names, numbers = np.unique(judged.groups, return_inverse=True)
    order, starts = np.argsort(numbers, kind="stable"), np.searchsorted(np.sort(numbers), np.arange(len(names) + 1))
    drawn = draw.integers(0, len(names), size)
    chosen = np.concatenate([order[starts[one] : starts[one + 1]] for one in drawn])
    groups = np.repeat(np.arange(size), np.diff(starts)[drawn])
    again = replace(
        arm,
        base=arm.base[chosen],
        uncut=arm.uncut[chosen],
        cuts={cut: losses[chosen] for cut, losses in arm.cuts.items()},
        dropped={},
    )
    return replace(judged, arms=[again], labels=judged.labels[chosen], groups=groups), [again]


def rates(judged: Judged, arm: JudgedArm, draws: int) -> Iterator[tuple[int, list[float]]]:
    """For each cut, from the largest, the share of false ships at each of the sizes."""
    for cut in sorted(arm.cuts, reverse=True):
        centred = recentred(judged, arm, cut)
        yield cut, [false_ships(judged, centred, size, draws) for size in SIZES]


def chosen_arm(judged: Judged) -> JudgedArm:
    """The best arm of the largest rank that was cut, by its validation loss."""
    cut = [arm for arm in judged.task if arm.cuts]
    recipe = best(recipes_of(arm for arm in cut if arm.record["rank"] == max(one.record["rank"] for one in cut)))
    assert recipe is not None
    return recipe.by_validation()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=2000, help="analyses at each size")
    parser.add_argument("--out", type=Path, default=RESULTS / "ship-level.json")
    given = parser.parse_args()
    run, results = RunDirectory(given.run), Results(given.out, **measured_on())
    judged = judged_of([run], [judged_rows(run)])
    arm = chosen_arm(judged)
    results.note(margin=MARGIN, allowed=ALLOWED, sizes=SIZES, draws=given.draws, run=run.path.name, arm=arm.name)
    results.note(step=judged.step, judged=len(judged.labels), groups=judged.clusters)
    for cut, found in rates(judged, arm, given.draws):
        results.add(cut=cut, rates=found)
    print(table(results.found), given.out, sep="\n\n")
    return int(highest_rate(results.found) > ALLOWED)


def table(found: dict[str, Any]) -> str:
    """The share of false ships at every cut and size."""
    rows = [[row["cut"], *(f"{rate:.1%}" for rate in row["rates"])] for row in found["results"]]
    return "\n\n".join(
        [
            f"{found['run']}, arm {found['arm']}, step {found['step']}: {found['draws']:,} analyses each, of n "
            f"examples drawn from {found['judged']} judged ones in {found['groups']} groups:",
            in_markdown(["k", *(f"n = {size:,}" for size in found["sizes"])], rows, words=0),
            f"The highest rate is {100 * highest_rate(found):.1f} %. At most {100 * found['allowed']:.0f} % is "
            "allowed: the level, 5 %, and what skewed differences may add.",
        ]
    )


def highest_rate(found: dict[str, Any]) -> float:
    """Of all cuts and sizes."""
    return max(rate for row in found["results"] for rate in row["rates"])


if __name__ == "__main__":
    sys.exit(main())
