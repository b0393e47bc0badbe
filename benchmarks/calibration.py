"""Is 'shared because of the task' said where there is nothing to learn, and how large is the excess where there is?

deltaw train 'arms.seeds=[0,1,2,3,4,5,6,7,8,9,10,11]' arms.shadows=2 data.judged=0 run.name=calibration
python benchmarks/calibration.py runs/calibration

Takes one run or several, on one base, with two ranks and six seeds or more in all. Shadows have nothing to learn, so
they play the arms: three seeds' shadow pairs are tested against other shadow pairs as the summary tests arms against
their control pairs (`deltaw.report.sharing`). The rate at which anything is called shared because of the task should be
at most 5 %. Its upper limit leaves out one seed at a time.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import combinations, permutations, product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from markdown_table import in_markdown, in_words, not_zero, with_error
from results_file import RESULTS, Results, measured_on, of_part

from deltaw.analysis.compare import Pairing, compare_all
from deltaw.analysis.excess import excess_of
from deltaw.analysis.study import SeedPairs, Study
from deltaw.report.sharing import ENOUGH, LEVEL, Excess, excesses
from deltaw.run.directory import RunDirectory

SPLITS = 300  # random splits of the seeds, for each set of seeds
RATE, EXCESS = "false calls", "excess"
MEASURES = {"first": "φ(1, 1)", "corner": "φ(r, r′)"}
ARMS, FIRST, SECOND = "", "-shadow1", "-shadow2"  # kinds of adapters, by the ends of their names

Means = dict[tuple[int, int, str], pd.DataFrame]  # left's seed, right's seed, kind: means over the sites beyond chance


def measure(runs: Sequence[RunDirectory], low: int, high: int, seeds: Sequence[int], kinds: Sequence[str]) -> Means:
    """Each left with right of every other seed, for each of the kinds: arms, first shadows and second shadows."""
    adapters = {name: run.adapter(name) for run in runs for name in run.arms}
    pairings = {
        (one, other, kind): Pairing(adapters[f"r{low}-s{one}{kind}"], adapters[f"r{high}-s{other}{kind}"], cells=False)
        for (one, other), kind in product(permutations(seeds, 2), kinds)
    }
    pairs = compare_all(list(pairings.values()), ["all"]).pairs
    by_names = dict(iter(pairs.groupby(["left", "right"])))
    return {
        key: over_sites(excess_of(alone(pairing), by_names[pairing.left.name, pairing.right.name]))
        for key, pairing in pairings.items()
    }


def alone(pairing: Pairing) -> Study:
    """A study of one pair."""
    return Study([SeedPairs(None, pairing)], [], one_order=False)


def over_sites(table: pd.DataFrame) -> pd.DataFrame:
    """The mean over all sites, by basis and measure."""
    return table.groupby(["basis", "measure"], sort=False).mean(numeric_only=True).reset_index()


def tests(means: Means, of: Sequence[int], arms: str, against: Sequence[int], controls: str) -> list[Excess]:
    """The summary's tests, with left of each seed and right of every other one."""
    pairs = []
    for one, other in zip(permutations(of, 2), permutations(against, 2), strict=True):
        pair, control = means[*one, arms], means[*other, controls].pair
        pairs.append(pair.assign(seed_left=one[0], seed_right=one[1], control=control, excess=pair.pair - control))
    return excesses(pd.concat(pairs))


def of_the_same_seeds(means: Means, seeds: Sequence[int]) -> float:
    """How often first shadows are called against the second ones of their seeds, or the other way round."""
    triples = list(combinations(seeds, ENOUGH))
    drawn = product(Random(0).sample(triples, min(SPLITS, len(triples))), ((FIRST, SECOND), (SECOND, FIRST)))
    return called(tests(means, three, one, three, other) for three, (one, other) in drawn)


def of_other_seeds(means: Means, seeds: Sequence[int]) -> float:
    """How often three seeds' shadows are called against those of three other seeds."""
    generator = Random(0)
    drawn = [generator.sample(list(seeds), 2 * ENOUGH) for _ in range(SPLITS)]
    return called(tests(means, six[:ENOUGH], FIRST, six[ENOUGH:], FIRST) for six in drawn)


def called(analyses: Iterable[list[Excess]]) -> float:
    """The share of analyses that call anything shared because of the task."""
    return float(np.mean([any(one.shown for one in found) for found in analyses]))


def upper_limit(rate: Callable[[Means, Sequence[int]], float], means: Means, seeds: Sequence[int]) -> float:
    """The upper 95 % limit of a rate, by leaving out one seed at a time; NaN with as few seeds as a split takes."""
    if len(seeds) <= 2 * ENOUGH:
        return np.nan
    left_out = np.array([rate(means, [seed for seed in seeds if seed != without]) for without in seeds])
    error = np.sqrt((len(seeds) - 1) / len(seeds) * ((left_out - left_out.mean()) ** 2).sum())
    return float(rate(means, seeds) + 1.645 * error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/calibration-BASE.json")
    given = parser.parse_args()
    runs = [RunDirectory(path) for path in given.runs]
    base = runs[0].record.base["name"]
    arms = [arm for run in runs for arm in run.record.arms if arm["control"] is None]
    seeds, (low, high) = sorted({arm["seed"] for arm in arms}), sorted({arm["rank"] for arm in arms})
    two = all(f"{arm['name']}{SECOND}" in run.arms for run in runs for arm in run.record.arms if arm["control"] is None)
    results = Results(given.out or RESULTS / f"calibration-{base}.json", **measured_on())
    trained = {"hardware": runs[0].record.hardware, "versions": runs[0].record.versions}
    results.note(base=base, ranks=[low, high], seeds=seeds, level=LEVEL, trained_on=trained)
    means = measure(runs, low, high, seeds, (ARMS, FIRST, SECOND) if two else (ARMS, FIRST))
    for rate in (of_the_same_seeds, of_other_seeds) if two else (of_other_seeds,):
        limit = upper_limit(rate, means, seeds)
        results.add(part=RATE, against=rate.__name__.replace("_", " "), rate=rate(means, seeds), upper=limit)
    for count in dict.fromkeys((ENOUGH, len(seeds))):
        for one in tests(means, seeds[:count], ARMS, seeds[:count], FIRST):
            results.add(part=EXCESS, of_seeds=count, **asdict(one))
    print(table_of_rates([results.found]), table([results.found]), results.file, sep="\n\n")


def table_of_rates(of_bases: Iterable[dict[str, Any]]) -> str:
    """How often shadows are called, and the upper limits."""
    rows = [
        [found["base"], row["against"], f"{row['rate']:.1%}", in_words(row["upper"], ".1%")]
        for found in of_bases
        for row in of_part(found, RATE)
    ]
    return in_markdown(["base", "three seeds' shadows against shadows", "called in", "upper 95 % limit"], rows, words=2)


def table(of_bases: Iterable[dict[str, Any]]) -> str:
    """What arms and their control pairs share beyond chance where it is tested, by three seeds and by all."""
    rows = [
        [
            found["base"],
            row["of_seeds"],
            row["basis"],
            MEASURES[row["measure"]],
            in_words(row["pair"], ".3f"),
            in_words(row["control"], ".3f"),
            with_error(row["excess"], row["se"]),
            not_zero(row["p"], ".2g"),
        ]
        for found in of_bases
        for row in of_part(found, EXCESS)
        if row["measure"] in MEASURES and row["basis"] != "input"  # those that are tested
    ]
    return in_markdown(["base", "seeds", "basis", "", "arms", "control pair", "excess", "p"], rows, words=4)


if __name__ == "__main__":
    main()
