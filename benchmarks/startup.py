"""Seconds from the command to the first step of `train.py`, beside those of the imports that no run can do without.

python benchmarks/startup.py                    five rounds, two minutes on two quiet cores
python benchmarks/startup.py --rounds 1 --out try.json

The commands take turns, after one round that is not counted, so that all find the same files in memory. `train.py`
validates one example before the first step in one case, and 128, which is work, in another.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from markdown_table import in_markdown
from results_file import RESULTS, Results, measured_on
from whole_run import first_step, only_steps, process

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import pytorch_lightning, peft, transformers"
TO_FIRST_STEP, AND_VALIDATION = "`train.py` to its first step", "the same with 128 examples validated before"
TITLES = [f"`{IMPORTS}`", TO_FIRST_STEP, AND_VALIDATION, "`analyze.py`, all of it", "`deltaw --help`"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = [one_round(Path(folder), number) for number in range(given.rounds + 1)][1:]
    results = Results(given.out, **measured_on())
    more = [seconds[TO_FIRST_STEP] - seconds[TITLES[0]] for seconds in rounds]
    cases = {title: [seconds[title] for seconds in rounds] for title in TITLES} | {"`train.py` minus the imports": more}
    for title, seconds in cases.items():
        results.add(case=title, rounds_s=seconds)
    print(table(results.found), given.out, sep="\n\n")


def table(found: dict[str, Any]) -> str:
    """Seconds of every case."""
    rounds = len(found["results"][0]["rounds_s"])
    rows = [[row["case"], *(f"{of(row['rounds_s']):.2f}" for of in (median, min, max))] for row in found["results"]]
    return in_markdown([f"seconds, {rounds} rounds", "median", "lowest", "highest"], rows)


def one_round(folder: Path, number: int) -> dict[str, float]:
    """Seconds of every case, by its title."""
    run, other = folder / f"{number}-run", folder / f"{number}-validated"
    imported = process("-c", f"{IMPORTS}; import time; print(time.time())")  # its end takes long too
    imports = imported.by(float(imported.printed.split()[-1]))
    cache = f"data.cache={folder}/cache"
    train = process(str(ROOT / "train.py"), *only_steps(run, 1), cache)
    validated = process(str(ROOT / "train.py"), *only_steps(other, 1), cache, "data.validation=128")
    analysis = process(str(ROOT / "analyze.py"), f"run={run}").wall_s
    text = process("-m", "deltaw", "--help").wall_s
    to_first = train.by(first_step(run)), validated.by(first_step(other))
    return dict(zip(TITLES, (imports, *to_first, analysis, text), strict=True))


if __name__ == "__main__":
    main()
