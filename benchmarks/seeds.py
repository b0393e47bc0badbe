"""φ between the smallest and the largest rank for every seed of a run, beside chance; losses; what controls reach.

deltaw train experiment=seeds
python benchmarks/seeds.py runs/<name> > benchmarks/seeds.md
"""

import sys
from math import isnan
from pathlib import Path

import pandas as pd

from deltaw import compare
from deltaw.analysis.losses import losses_of
from deltaw.run.directory import RunDirectory


def main(path: Path) -> None:
    run = RunDirectory(path)
    task = [arm for arm in run.record.arms if arm["control"] is None]
    seeds = sorted({arm["seed"] for arm in task})
    low, high = min(arm["rank"] for arm in task), max(arm["rank"] for arm in task)
    pairs = {s: (run.adapter(f"r{low}-s{s}"), run.adapter(f"r{high}-s{s}")) for s in seeds}
    tables = {s: compare(*pair, basis="A").phi for s, pair in pairs.items()}
    first = next(iter(tables.values()))

    print(f"# {path.name}, after step {first.step_left[0]}\n")
    print("Basis A. A column per seed; chance is what random subspaces give on average, max(i, j)/d.\n")
    cells = ((1, 1), (low, high))
    columns = [f"seed {s}" for s in seeds]
    print(row("layer", "matrix", *(f"φ{cell} {name}" for cell in cells for name in (*columns, "by chance"))))
    print(row(*["---"] * (2 + len(cells) * (len(seeds) + 1))))
    for layer, projection in first[["layer", "projection"]].drop_duplicates().itertuples(index=False):
        print(row(layer, f"ΔW_{projection}", *(n for cell in cells for n in levels(tables, layer, projection, *cell))))

    print("\nValidation loss in nats a token, and the share of the task's gain that a control of the arm reaches:\n")
    print(row("arm", "start", "end", "share of the gain"))
    print(row(*["---"] * 4))
    losses = losses_of([pairs[seeds[0]][0]])
    for arm, start, end, share in zip(losses.arm, losses.start, losses.end, losses.share, strict=True):
        print(row(arm, f"{start:.2f}", f"{end:.2f}", "" if isnan(share) else f"{share:.0%}"))


def levels(tables: dict[int, pd.DataFrame], layer: int, projection: str, i: int, j: int) -> list[str]:
    """φ(i, j) at one site for every seed, then chance."""
    place = f"layer == {layer} and projection == '{projection}' and i == {i} and j == {j}"
    rows = [table.query(place).iloc[0] for table in tables.values()]
    return [*(f"{found.phi:.3f}" for found in rows), f"{rows[0].null_mean:.3f}"]


def row(*entries: object) -> str:
    return "| " + " | ".join(map(str, entries)) + " |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
