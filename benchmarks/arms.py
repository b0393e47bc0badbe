"""Memory and time of K arms in company, against K jobs of one arm each; and what shadows and snapshots cost.

python benchmarks/arms.py                        on quiet cores
python benchmarks/arms.py --steps 10 --work /tmp/try --out /tmp/try/arms.json --plot /tmp/try/arms.png

All on the bundled base and text. K arms have rank 8 and seeds 0 to K − 1; the jobs they are compared with have one of
these seeds each. At batch 4 an arm takes `--steps` steps, at the default batch a fifth of them. Each process leaves a
file under `--work`, where the same command finds it again: remove the folder after a change. Times are those of the
steps, and those of whole processes. Memory is what is resident on the CPU, and what is allocated on a GPU.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from markdown_table import in_markdown
from results_file import RESULTS, Results, measured_on, of_part
from whole_run import GIB, first_step, last_step, once, only_steps, process

from deltaw.run.directory import RunDirectory

COMPANIES = (1, 2, 4, 8)  # numbers of arms
DEFAULT_BATCH = 16
SHADOWS = (0, 1, 4)
EVERY = 50  # the default of snapshots.every

PEAK = "import torch; print(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)"
TRAIN = f"from deltaw.entry.train import main; main(); {PEAK}"
LOAD = f"""
import peft, deltaw.commands.train, torch
from deltaw.model.loading import load_base, load_tokenizer
base = load_base("bundled", load_tokenizer("bundled")).model.to("cuda" if torch.cuda.is_available() else "cpu")
{PEAK}
"""


@dataclass(frozen=True)
class Job:
    """A run of `train.py`, as one process.

    Attributes:
        batch: examples of one arm per step.
        steps: of the optimiser.
        ranks: and `seeds`: an arm for each rank and each seed.
        seeds: see there.
        shadows: of each arm.
    """

    batch: int
    steps: int
    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    shadows: int = 0

    @property
    def name(self) -> str:
        ranks, seeds = ("-".join(map(str, numbers)) for numbers in (self.ranks, self.seeds))
        return f"batch{self.batch}-steps{self.steps}-r{ranks}-s{seeds}-shadows{self.shadows}"

    def settings(self, run: Path) -> list[str]:
        arms = [f"arms.ranks={list(self.ranks)}", f"arms.seeds={list(self.seeds)}", f"arms.shadows={self.shadows}"]
        return [*only_steps(run, self.steps), *arms, f"data.batch={self.batch}", f"data.cache={run.parent}/cache"]


@dataclass(frozen=True)
class Took:
    """What a process took.

    Attributes:
        wall_s: from its command to its end.
        processor_s: of all cores in this time, which tells what other processes on the machine do not change.
        start_s: from its command to its first step.
        steps_s: from there to the end of its last step.
        peak_gib: most memory.
        snapshot_s: a snapshot of all arms with its checkpoint.
    """

    wall_s: float
    processor_s: float
    start_s: float
    steps_s: float
    peak_gib: float
    snapshot_s: float


def main() -> None:
    given = arguments()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    steps = {4: given.steps, DEFAULT_BATCH: max(1, given.steps // 5)}
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    results = Results(given.out, **measured_on(card))
    base = loaded(work)
    measure(work, Job(4, 1, (8,), (0,)))  # tokenises the text for all others
    results.note(base_gib=base)
    rows = [row for batch in steps for row in compared(work, batch, steps[batch], base)]
    for one in [*rows, *shadow_costs(work, steps[DEFAULT_BATCH])]:
        results.add(**one)
    print(table(results.found), table_of_shadows(results.found), given.out, sep="\n\n")
    plot(rows, given.plot)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="of the optimiser")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "deltaw-arms", help="folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "arms.json")
    parser.add_argument("--plot", type=Path, default=RESULTS / "arms.png")
    return parser.parse_args()


def compared(work: Path, batch: int, steps: int, base_gib: float) -> list[dict[str, Any]]:
    """K arms in company and K jobs, for every K: measured in turns, so that a slower hour meets both."""
    company: dict[int, Took] = {}
    alone: list[Took] = []
    for K in COMPANIES:
        alone += [measure(work, Job(batch, steps, (8,), (seed,))) for seed in range(len(alone), K)]
        company[K] = measure(work, Job(batch, steps, (8,), tuple(range(K))))
    own = mean(job.peak_gib for job in alone) - base_gib
    return [
        {
            "part": "company",
            "batch": batch,
            "steps": steps,
            "arms": K,
            "company": vars(company[K]),
            "jobs": {
                key: sum(getattr(job, key) for job in alone[:K])
                for key in ("wall_s", "processor_s", "start_s", "steps_s", "peak_gib")
            },
            "base_and_arms_gib": base_gib + K * own,
        }
        for K in COMPANIES
    ]


def shadow_costs(work: Path, steps: int) -> list[dict[str, Any]]:
    """r=8 and r=64 alone, and both in company without and with shadows, at the default batch."""
    jobs = [Job(DEFAULT_BATCH, steps, (rank,), (0,)) for rank in (8, 64)]
    jobs += [Job(DEFAULT_BATCH, steps, (8, 64), (0,), shadows) for shadows in SHADOWS]
    return [
        {"part": "shadows", "ranks": job.ranks, "shadows": job.shadows, "steps": steps, **vars(measure(work, job))}
        for job in jobs
    ]


def measure(work: Path, job: Job) -> Took:
    """What a job took, which is read if it has been measured before."""
    return Took(**once(work / job.name, partial(train, work / job.name / "run", job)))


def train(run: Path, job: Job) -> Took:
    done = process("-c", TRAIN, *job.settings(run))
    first, last = done.by(first_step(run)), done.by(last_step(run, job.steps))
    peak = int(done.printed.split()[-1]) or done.peak_bytes
    snapshots = RunDirectory(run).metrics().query("name == 'snapshot_s'").value.median()
    times = (done.wall_s, done.processor_s, first, last - first)
    return Took(*times, peak / GIB, float(snapshots))


def loaded(work: Path) -> float:
    """Memory of a process that has loaded the base and all that a run imports, in GiB."""
    file = work / "base.json"
    if not file.exists():
        done = process("-c", LOAD)
        file.write_text(json.dumps((int(done.printed.split()[-1]) or done.peak_bytes) / GIB))
    gib: float = json.loads(file.read_text())
    return gib


def table(found: dict[str, Any]) -> str:
    """K arms in company beside K jobs, for every batch and K."""
    head = ["batch", "steps", "K", "steps: company, s", "K jobs, s", "ratio", "whole: company, s", "K jobs, s", "ratio"]
    head += ["company, GiB", "a base and K arms, GiB", "K jobs at once, GiB"]
    return in_markdown(head, [_row(row) for row in of_part(found, "company")], words=0)


def _row(row: dict[str, Any]) -> list[object]:
    company, jobs = row["company"], row["jobs"]
    times = (
        (f"{company[key]:.1f}", f"{jobs[key]:.1f}", f"{company[key] / jobs[key]:.2f}") for key in ("steps_s", "wall_s")
    )
    memory = (company["peak_gib"], row["base_and_arms_gib"], jobs["peak_gib"])
    return [row["batch"], row["steps"], row["arms"], *chain(*times), *(f"{gib:.2f}" for gib in memory)]


def table_of_shadows(found: dict[str, Any]) -> str:
    """What the shadows of r=8 and r=64 cost, and snapshots with their checkpoints."""
    rows = of_part(found, "shadows")
    without = next(row for row in rows if row["ranks"] == [8, 64] and not row["shadows"])
    cells = [
        [
            " and ".join(f"r={rank}" for rank in row["ranks"]),
            row["shadows"],
            f"{row['steps_s'] / row['steps']:.3f}",
            f"{row['steps_s'] / without['steps_s']:.2f}",
            f"{row['peak_gib']:.2f}",
            f"{row['snapshot_s'] * row['steps'] / row['steps_s'] / EVERY:.2%}",
        ]
        for row in rows
    ]
    head = ["arms", "shadows of each", "seconds a step", "to both without", "GiB", f"snapshots, every {EVERY} steps"]
    return in_markdown(head, cells)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Seconds and memory against K, a row of panels for each batch."""
    from matplotlib.figure import Figure  # here: to Linux, the most that this process held is held by those it starts

    batches = list(dict.fromkeys(row["batch"] for row in rows))
    figure = Figure(figsize=(9, 3.2 * len(batches)), layout="constrained")
    for panels, batch in zip(figure.subplots(len(batches), 3, squeeze=False), batches, strict=True):
        of_batch = [row for row in rows if row["batch"] == batch]
        arms, steps = [row["arms"] for row in of_batch], of_batch[0]["steps"]
        for axes, key in zip(panels, ("steps_s", "wall_s", "peak_gib"), strict=True):
            for side, colour, title in (("company", "C0", "in company"), ("jobs", "C1", "K jobs")):
                at_once = ", at once" if (side, key) == ("jobs", "peak_gib") else ""
                values = [row[side][key] for row in of_batch]
                axes.plot(arms, values, f"{colour}o-", label=title + at_once)
            if key == "peak_gib":
                axes.plot(arms, [row["base_and_arms_gib"] for row in of_batch], "k:", label="one base and K arms")
            label = {"steps_s": f"{steps} steps, s", "wall_s": "whole processes, s", "peak_gib": "memory, GiB"}[key]
            axes.set(xlabel="arms K", ylabel=label, title=f"batch {batch}", xticks=arms)
            axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # the legend stands above the lines
            axes.legend(loc="upper left", fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
