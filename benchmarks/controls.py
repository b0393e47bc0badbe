"""What two ranks share when both learn the task, both learn something else, or neither learns: over all seeds of a run.

deltaw train experiment=controls 'arms.seeds=[0,1,2]' run.name=controls
python benchmarks/controls.py runs/controls
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from markdown_table import in_markdown, in_words, with_error
from results_file import RESULTS, Results, measured_on, of_part

from deltaw import compare
from deltaw.analysis.compare import compare_all
from deltaw.analysis.excess import excess_of
from deltaw.analysis.losses import losses_of
from deltaw.analysis.study import study_of
from deltaw.maths.seeds import over_seeds
from deltaw.report.sharing import SEEDS
from deltaw.run.directory import RunDirectory

TASK, SHUFFLED, NOTHING = "the task", "completions dealt to other prompts", "nothing: the control pair"
CROSSED = "one the task, one completions dealt to other prompts"
LEARNED = {  # by left and right: the ends of their names
    TASK: ("", ""),
    SHUFFLED: ("-shuffled", "-shuffled"),
    CROSSED: ("", "-shuffled"),
    "random tokens": ("-random", "-random"),
    "the task, B alone": ("-frozen_a", "-frozen_a"),
    NOTHING: ("-shadow1", "-shadow1"),
}
IN_SHORT = (TASK, SHUFFLED, CROSSED, NOTHING)
MEASURES = {"first": "φ(1, 1)", "corner": "φ(r, r′)", "k_star": "k_star"}
SHARED, SITE, LOSS = "shared by two seeds", "shared by one seed, at a site", "validation loss"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "controls.json")
    given = parser.parse_args()
    run, results = RunDirectory(given.run), Results(given.out, **measured_on())
    task = [arm for arm in run.record.arms if arm["control"] is None]
    seeds, (low, high) = sorted({arm["seed"] for arm in task}), sorted({arm["rank"] for arm in task})
    trained = {"hardware": run.record.hardware, "versions": run.record.versions}
    results.note(trained_on=trained, step=run.steps(task[0]["name"])[-1], seeds=seeds, ranks=[low, high])
    for row in (*shared(run, low, high, seeds[0]), *at_sites(run, low, high, seeds), *losses(run, task[0]["name"])):
        results.add(**row)
    print(table(results.found), table_of_losses(results.found), given.out, sep="\n\n")


def shared(run: RunDirectory, low: int, high: int, seed: int) -> Iterator[dict[str, Any]]:
    """Every left with every right of another seed: means over sites and seeds beyond chance, with their errors."""
    for learned, (left, right) in LEARNED.items():
        study = study_of(run.adapter(f"r{low}-s{seed}{left}"), run.adapter(f"r{high}-s{seed}{right}"))
        excess = excess_of(study, compare_all(list(study.pairings()), ["all"]).pairs)
        for basis in excess.basis.unique():
            for measure in MEASURES:
                rows = excess[(excess.basis == basis) & (excess.measure == measure)]
                means = rows.groupby(SEEDS, as_index=False).pair.mean()
                found = over_seeds(means[SEEDS].to_numpy(dtype=int), means.pair.to_numpy())
                yield {
                    "part": SHARED,
                    "learned": learned,
                    "basis": basis,
                    "measure": measure,
                    "mean": found.mean,
                    "se": found.se,
                }


def at_sites(run: RunDirectory, low: int, high: int, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """φ on A of left and right of one seed, and so of one order of examples: the first directions, and the spans."""
    for seed in seeds:
        phi = compare(run.adapter(f"r{low}-s{seed}"), run.adapter(f"r{high}-s{seed}"), basis="A").phi
        for i, j in ((1, 1), (low, high)):
            for row in phi[(phi.i == i) & (phi.j == j)].itertuples():
                site = {"layer": row.layer, "projection": row.projection, "seed": seed, "i": i, "j": j}
                yield {"part": SITE, **site, "phi": row.phi, "chance": row.null_mean}


def losses(run: RunDirectory, arm: str) -> Iterator[dict[str, Any]]:
    """Of every arm in nats a token, and the share of the task's gain that a control reaches."""
    for row in losses_of([run.adapter(arm)]).to_dict("records"):
        yield {"part": LOSS, **{name: row[name] for name in ("arm", "start", "end", "end_se", "share")}}


def table(found: dict[str, Any]) -> str:
    """What is shared, in every basis."""
    words = _words(found)
    rows = [
        [learned, basis, *(words[learned, basis, measure] for measure in MEASURES)]
        for learned, basis in dict.fromkeys((learned, basis) for learned, basis, _ in words)
    ]
    return in_markdown(["r=8 and r=64 learned", "basis", *MEASURES.values()], rows, words=2)


def table_in_short(found: dict[str, Any]) -> str:
    """φ(1, 1) of arms of two seeds."""
    words, bases = _words(found), ("A", "update", "output")
    rows = [[learned, *(words[learned, basis, "first"] for basis in bases)] for learned in IN_SHORT]
    return in_markdown(["r=8 and r=64 learned", *(f"φ(1, 1) on {basis}" for basis in bases)], rows)


def _words(found: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """Mean and error of what is shared, by what was learned, basis and measure; a dash where B alone moves."""
    return {
        (row["learned"], row["basis"], row["measure"]): (
            "–" if row["mean"] is None else with_error(row["mean"], row["se"])
        )
        for row in of_part(found, SHARED)
    }


def table_of_sites(found: dict[str, Any]) -> str:
    """φ of arms of one seed, over all sites and seeds."""
    rows = []
    for (i, j, projection), sites in pd.DataFrame(of_part(found, SITE)).groupby(["i", "j", "projection"]):
        numbers = (sites.phi.min(), sites.phi.mean(), sites.phi.max(), sites.chance.mean())
        rows.append([f"φ({i}, {j}), ΔW_{projection}", *(f"{number:.3f}" for number in numbers)])
    return in_markdown(["", "lowest", "mean", "highest", "chance"], rows)


def sentence_of_orders(found: dict[str, Any]) -> str:
    """What two arms share in their first directions when they take their examples in one order, and in two."""
    sites = _first_directions(found)
    return (
        f"On the bundled base φ(1, 1) on A is {(sites.phi - sites.chance).mean():.3f} beyond chance for "
        f"{_arms(found)} of one seed, and {_words(found)[TASK, 'A', 'first']} for arms of different seeds (means over "
        f"the sites and over seeds {', '.join(map(str, found['seeds']))})."
    )


def sentence_of_spread(found: dict[str, Any]) -> str:
    """How much the number of one site differs between seeds."""
    spread = _first_directions(found).groupby(["layer", "projection"]).phi.std()
    return (
        f"Between {len(found['seeds'])} seeds, φ(1, 1) at a single site has a standard deviation of "
        f"{spread.median():.2f} (median of the {len(spread)} sites of the bundled base), at one of them "
        f"{spread.max():.2f}."
    )


def _first_directions(found: dict[str, Any]) -> pd.DataFrame:
    """φ(1, 1) of arms of one seed, at every site of every seed."""
    sites = pd.DataFrame(of_part(found, SITE))
    return sites[(sites.i == 1) & (sites.j == 1)]


def _arms(found: dict[str, Any]) -> str:
    """Left's and right's rank."""
    return " and ".join(f"r={rank}" for rank in found["ranks"])


def sentence_of_losses(found: dict[str, Any]) -> str:
    """What the task gives, and how much of it arms reach that see its completions with other prompts."""
    rows = of_part(found, LOSS)
    arms = {f"r{rank}": [row for row in rows if re.fullmatch(rf"r{rank}-s\d+", row["arm"])] for rank in found["ranks"]}
    task = [row for of_rank in arms.values() for row in of_rank]
    ends = (f"{mean(row['end'] for row in of_rank):.2f}" for of_rank in arms.values())
    shuffled = [100 * row["share"] for row in rows if row["arm"].endswith("-shuffled")]
    return (
        f"Validation loss falls from {task[0]['start']:.2f} to {' and '.join(ends)} nats a "
        f"token in {found['step']} steps ({_arms(found)}; means of {len(found['seeds'])} seeds, with a "
        f"standard error of at most {max(row['end_se'] for row in task):.2f} over the validation examples). Arms on "
        f"completions dealt to other prompts reach {min(shuffled):.0f} to {max(shuffled):.0f} % of that gain."
    )


def table_of_losses(found: dict[str, Any]) -> str:
    """Of all arms, at the start and at the end."""
    rows = [
        [
            row["arm"],
            f"{row['start']:.2f}",
            f"{row['end']:.2f} ± {in_words(row['end_se'], '.2f')}",
            "" if row["share"] is None else in_words(row["share"], ".0%"),
        ]
        for row in of_part(found, LOSS)
    ]
    return in_markdown(["arm", "start", "end", "share of the task's gain"], rows)


if __name__ == "__main__":
    main()
