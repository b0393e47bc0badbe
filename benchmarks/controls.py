"""What two ranks share when both learn the task, both learn something else, or neither learns: over all seeds of a run.

deltaw train experiment=controls 'arms.seeds=[0,1,2]' run.name=controls
python benchmarks/controls.py runs/controls > benchmarks/controls.md
"""

import sys
from math import isnan
from pathlib import Path

import pandas as pd

from deltaw.analysis.compare import compare_all
from deltaw.analysis.excess import excess_of
from deltaw.analysis.losses import losses_of
from deltaw.analysis.study import study_of
from deltaw.maths.seeds import over_seeds
from deltaw.report.sharing import SEEDS
from deltaw.run.directory import RunDirectory

LEARNED = {
    "": "the task",
    "-shuffled": "completions dealt to other prompts",
    "-random": "random tokens",
    "-frozen_a": "the task, B alone",
    "-shadow1": "nothing (the control pair)",
}
MEASURES = {"first": "φ(1, 1)", "corner": "φ(r, r′)", "k_star": "k_star"}


def main(run: RunDirectory) -> None:
    task = [arm for arm in run.record.arms if arm["control"] is None]
    seeds, (low, high) = sorted({arm["seed"] for arm in task}), sorted({arm["rank"] for arm in task})
    step = run.steps(task[0]["name"])[-1]
    print(f"# What two ranks share with and without the task\n\n{len(seeds)} seeds, after step {step}.")
    print(f"Every r={low} with r={high} of the other seeds; means over sites and seeds minus what random subspaces")
    print("give, ± the standard error over seeds. Both arms of a pair learned the same kind of thing.\n")
    print_table("both learned", "basis", *MEASURES.values())
    for end, learned in LEARNED.items():
        study = study_of(run.adapter(f"r{low}-s{seeds[0]}{end}"), run.adapter(f"r{high}-s{seeds[0]}{end}"))
        table = excess_of(study, compare_all(list(study.pairings()), ["all"]).pairs)
        for basis in table.basis.unique():
            rows = table[table.basis == basis]
            print_row(learned, basis, *(shared(rows[rows.measure == measure]) for measure in MEASURES))
    print("\nValidation loss in nats a token:\n")
    print_table("arm", "start", "end", "share of the task's gain")
    for arm in losses_of([run.adapter(task[0]["name"])]).to_dict("records"):
        share = "" if isnan(arm["share"]) else f"{max(arm['share'], 0):.0%}"
        print_row(arm["arm"], f"{arm['start']:.2f}", f"{arm['end']:.2f} ± {arm['end_se']:.2f}", share)


def shared(rows: pd.DataFrame) -> str:
    """The mean over sites and seeds of the column `pair`, with its error."""
    means = rows.groupby(SEEDS, as_index=False).pair.mean()
    found = over_seeds(means[SEEDS].to_numpy(dtype=int), means.pair.to_numpy())
    return "–" if isnan(found.mean) else f"{found.mean:.3f} ± {found.se:.3f}"


def print_table(*names: str) -> None:
    print_row(*names)
    print_row(*["---"] * len(names))


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main(RunDirectory(Path(sys.argv[1])))
