"""What two ranks share when both learn the task, both learn something else, or neither learns: over all seeds of a run.

deltaw train experiment=controls 'arms.seeds=[0,1,2]' run.name=controls
python benchmarks/controls.py runs/controls > benchmarks/controls.md
"""

import sys
from pathlib import Path

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
    print("# What two ranks share with and without the task\n")
    print(
        f"{len(seeds)} seeds, after step {run.steps(task[0]['name'])[-1]}. Every r={low} with r={high} of the other seeds; means over sites and seeds minus what random subspaces give, ± "
        "the standard error over seeds. Both arms of a pair learned the same kind of thing."
    )
    print(
        "\n| both learned | basis |", " | ".join(MEASURES.values()), "|\n| --- | --- " + "| --- " * len(MEASURES) + "|"
    )
    for end, learned in LEARNED.items():
        study = study_of(run.adapter(f"r{low}-s{seeds[0]}{end}"), run.adapter(f"r{high}-s{seeds[0]}{end}"))
        table = excess_of(study, compare_all(list(study.pairings()), ["all"]).pairs)
        for basis, rows in table.groupby("basis", sort=False):
            cells = []
            for measure in MEASURES:
                means = rows[rows.measure == measure].groupby(SEEDS, as_index=False).pair.mean()
                found = over_seeds(means[SEEDS].to_numpy(dtype=int), means.pair.to_numpy())
                cells.append(f"{found.mean:.3f} ± {found.se:.3f}")
            print(f"| {learned} | {basis} | {' | '.join(cells)} |")
    print(
        "\nValidation loss in nats a token:\n\n| arm | start | end | share of the task's gain |\n" + "| --- " * 4 + "|"
    )
    for arm in losses_of([run.adapter(task[0]["name"])]).itertuples():
        share = f"{arm.share:.0%}" if arm.share > 0 else "none" if arm.control else ""
        print(f"| {arm.arm} | {arm.start:.2f} | {arm.end:.2f} ± {arm.end_se:.2f} | {share} |")


if __name__ == "__main__":
    main(RunDirectory(Path(sys.argv[1])))
