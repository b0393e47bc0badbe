"""What arms in company, shadows and snapshots cost, as ratios measured in one run.

python benchmarks/training.py [overrides of train.py]

Trains r=8 alone, r=64 alone and both in company on the default base and text, with 0, 1 and 4 shadows each; 60 steps
each, in two rounds, of which the faster counts.
"""

import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from deltaw.run.directory import RunDirectory

EVERY = 50  # the default of snapshots.every
TRAIN = Path(__file__).parent.parent / "train.py"


def measure(folder: str, ranks: str, shadows: int = 0) -> tuple[float, float]:
    """Median seconds of a step, and of a snapshot of all arms with its checkpoint."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "run"
    settings = [f"arms.ranks={ranks}", f"arms.shadows={shadows}", f"run.dir={path}", "trainer.max_steps=60"]
    quick = ["metrics.every=5", "data.validation=1", "metrics.validate_every=60", "snapshots.every=20"]
    subprocess.run([sys.executable, TRAIN, *settings, *quick, *sys.argv[1:]], check=True, stdout=sys.stderr)
    seconds = RunDirectory(path).metrics().groupby("name").value.median()
    return seconds["step_s"], seconds["snapshot_s"]


CASES = [("[8]", 0), ("[64]", 0), ("[8,64]", 0), ("[8,64]", 1), ("[8,64]", 4)]  # ranks and shadows


def main() -> None:
    rounds: list[dict[tuple[str, int], tuple[float, float]]] = []
    memory: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            seconds = {}
            for case in CASES:
                seconds[case] = measure(folder, *case)
                most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of all processes yet
                memory.setdefault(case, most)  # so the cases come in the order of what they hold
            rounds.append(seconds)
    low, high, step, with_one, with_four = (min(seconds[case][0] for seconds in rounds) for case in CASES)
    snapshot = min(seconds["[8,64]", 1][1] for seconds in rounds)
    in_company = ", ".join(f"{memory['[8,64]', n]:.2f} with {n} shadows" for n in (0, 1, 4))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"machine: {device}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}")
    print(f"seconds a step: r=8 alone {low:.3f}, r=64 alone {high:.3f}, in company {step:.3f}")
    print(f"company / sum of both alone: {step / (low + high):.2f}")
    print(f"seconds a step in company with 1 shadow {with_one:.3f}, with 4 {with_four:.3f}")
    print(f"with 1 shadow / without: {with_one / step:.3f}; with 4: {with_four / step:.3f}")
    print(f"most memory of the process, in GiB: {in_company}")
    print(f"snapshots and checkpoint, every {EVERY} steps: {snapshot / (EVERY * with_one):.2%} of training time")


if __name__ == "__main__":
    main()
