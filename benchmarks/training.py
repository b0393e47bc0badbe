"""Training r=8 and r=64: `train.py` against what a user would pick instead, as whole processes on the CPU.

python benchmarks/training.py bundled                                     the bundled base and text, four seeds
python benchmarks/training.py smollm2 --model FOLDER --data FILE.jsonl    a pretrained base in bfloat16, 12 steps
python benchmarks/training.py paired                                      from one start, in one order: eight seeds

Every side trains the same examples from the same base with the same batch, precision, optimiser, schedule and steps;
one that trains one arm at a time does so in two processes, one after the other. Each process leaves a file under
`--work`, where the same command finds it again. The sides of a seed run by turns of half a second, so that a machine
that grows slower does so for all. `--trl` names the Python of an environment with TRL. Results are in
benchmarks/results/; docs/benchmarks.md says what differs between the sides.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from results_file import RESULTS, Results, measured_on
from training_parts.report import figures, table, table_of_pairs
from training_parts.sides import BEST, DEFAULTS, EAGER, OURS, PAIRED, TITLES, TRL, Trained, call, measure
from training_parts.workloads import Workload, bundled, smollm2
from whole_run import in_turns

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = "The bundled base and text"
NAMES = {"bundled": BUNDLED, "paired": BUNDLED, "smollm2": "SmolLM2-135M-Instruct (dequantised)"}
SIDES = {
    "bundled": [OURS, DEFAULTS, BEST],
    "paired": [OURS, PAIRED],
    "smollm2": [OURS, DEFAULTS, BEST, EAGER],  # eager attention pays in bfloat16
}


def main() -> None:
    given = arguments()
    of_user = given.workload == "smollm2"
    workload = smollm2(given.model, given.data, given.steps) if of_user else bundled(given.workload, given.steps)
    run(workload, given.work / workload.name, given.sides, range(given.seeds), given.trl, given.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=NAMES)
    parser.add_argument("--model", type=Path, help="of smollm2: a folder with a Llama")
    parser.add_argument("--data", type=Path, help="of smollm2: JSON lines with prompt and completion")
    parser.add_argument("--seeds", type=int, help="number of seeds; default: 4, for paired 8, for smollm2 1")
    parser.add_argument("--steps", type=int, help="of the optimiser; default: 150, for smollm2 12")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=TITLES,
        help="default: all that go with the workload; trl with --trl alone",
    )
    parser.add_argument("--trl", metavar="PYTHON", help="the Python of an environment with TRL")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "deltaw-training", help="folder")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/training-WORKLOAD.json")
    given = parser.parse_args()
    if given.workload == "smollm2" and not (given.model and given.data):
        parser.error("smollm2 takes --model and --data")
    if TRL in (given.sides or []) and not given.trl:
        parser.error("the side trl takes --trl PYTHON")
    given.seeds = given.seeds or {"bundled": 4, "paired": 8, "smollm2": 1}[given.workload]
    given.sides = given.sides or [*SIDES[given.workload], *([TRL] if given.trl else [])]
    given.out = given.out or RESULTS / f"training-{given.workload}.json"
    return given


def run(workload: Workload, folder: Path, sides: list[str], seeds: range, trl: str | None, out: Path) -> None:
    """Measure what has not been measured, and write the results of all that has.

    Args:
        workload: what every side trains.
        folder: where each process leaves its file.
        sides: who trains.
        seeds: of which each is trained by every side.
        trl: the Python that has TRL.
        out: the file of results.
    """
    folder = folder.resolve()
    prepare(workload, folder)
    about = json.loads((folder / "about.json").read_text())
    rows: list[dict[str, Any]] = []
    used: dict[str, Any] = {}
    for seed in seeds:
        rate = rate_of(folder, about["dtype"], seed)
        jobs = {
            side: partial(measure, workload, folder, side, seed, trl if trl and side == TRL else sys.executable)
            for side in sides
        }
        taken = in_turns({side: job for side, job in jobs.items() if side != PAIRED})
        if PAIRED in jobs:  # goes on from what ours has left
            taken[PAIRED] = jobs[PAIRED]()
        losses = validated(workload, folder, about, taken, seed)
        for side in sides:
            found = figures(taken[side], workload.steps, about["train"], rate, losses[side])
            rows.append({"seed": seed, "side": side, "product_gflops": rate / 1e9, **found})
            used.setdefault(side, [process.told for process in taken[side]])
        write(workload, about, rows, used, folder, out)
    found = json.loads(out.read_text(encoding="utf-8"))
    print(table_of_pairs(found) if PAIRED in sides else table([found]))
    print(out)


def prepare(workload: Workload, folder: Path) -> None:
    """Write the examples and the setting, unless the work folder has those of this command.

    Raises:
        SystemExit: it has those of another, or measurements of other code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [json.dumps(part) for part in (workload.base, workload.data, workload.steps)]
    asked, file = [*words, code()], folder / "asked.json"
    if not file.exists():
        call("prepare", str(folder), *words)
        file.write_text(json.dumps(asked))
    elif json.loads(file.read_text()) != asked:
        sys.exit(f"error: {folder} holds what other code, settings or steps have measured: give another --work")


def code() -> str:
    """A hash of the code that trains and measures: what it has measured does not go with what other code measures."""
    parts = {*(ROOT / "benchmarks" / "training_parts").glob("*.py")} - {ROOT / "benchmarks/training_parts/report.py"}
    files = [ROOT / "train.py", ROOT / "benchmarks" / "whole_run.py", *parts, *(ROOT / "src").rglob("*.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


def rate_of(folder: Path, dtype: str, seed: int) -> float:
    """FLOPs a second of a matrix product, measured before the sides of a seed are."""
    file = folder / f"rate-s{seed}.json"
    if not file.exists():
        call("rate", dtype, str(file))
    rate: float = json.loads(file.read_text())
    return rate


def validated(
    workload: Workload, folder: Path, about: dict[str, str], taken: dict[str, list[Trained]], seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The validation loss of every side, arm and step (in the second half of the training), in nats a token.

    Raises:
        RuntimeError: an arm has learned nothing at some site.
    """
    places = {
        (side, arm, step): path
        for side, processes in taken.items()
        for process in processes
        for arm, steps in process.folders.items()
        for step, path in steps.items()
        if 2 * int(step) > workload.steps
    }
    task, out = folder / f"validation-s{seed}.task.json", folder / f"validation-s{seed}.json"
    found = json.loads(out.read_text()) if out.exists() else {}
    if places.values() - found.keys():
        shared = {"model": about["model"], "dtype": about["dtype"], "mixed": workload.mixed}
        files = {"tokens": str(folder / "validation.tokens.json"), "folders": list(places.values()), "out": str(out)}
        task.write_text(json.dumps(shared | files))
        call("validation", str(task))
        found = json.loads(out.read_text())
    if still := [path for path in places.values() if not found[path]["moved"]]:
        raise RuntimeError(f"{still[0]} has a B that is still zero: what was measured is no training")
    losses: dict[str, dict[str, dict[str, float]]] = {}
    for (side, arm, step), path in places.items():
        losses.setdefault(side, {}).setdefault(arm, {})[step] = found[path]["loss"]
    return losses


def write(
    workload: Workload,
    about: dict[str, Any],
    rows: list[dict[str, Any]],
    used: dict[str, Any],
    folder: Path,
    out: Path,
) -> None:
    """The file of results: every seed and side, and what exactly each side was told."""
    shared = {name: about[name] for name in ("batch", "dtype", "steps", "lr", "max_length")}
    results = Results(out, **measured_on(), workload={"title": NAMES[workload.name], **shared})
    places = {str(folder): "WORK", str(about["model"]): "MODEL"}
    told = json.dumps(used)
    for path, name in places.items():
        told = told.replace(path, name)
    results.note(told=json.loads(told))
    for row in rows:
        results.add(**row)


if __name__ == "__main__":
    main()
