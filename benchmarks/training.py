"""What arms in company and snapshots cost, as ratios measured in one run.

python benchmarks/training.py [overrides of train.py]

Trains r=8 alone, r=64 alone and both in company on the default base and text, 60 steps each.
"""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from deltaw.run.directory import RunDirectory

EVERY = 50  # the default of snapshots.every
TRAIN = Path(__file__).parent.parent / "train.py"


def measure(folder: str, ranks: str) -> tuple[float, float]:
    """Median seconds of a step, and of a snapshot of all arms with its checkpoint."""
    path = Path(folder) / ranks
    settings = [f"arms.ranks={ranks}", f"run.dir={path}", "trainer.max_steps=60", "metrics.every=5"]
    quick = ["data.validation=1", "metrics.validate_every=60", "snapshots.every=20"]
    subprocess.run([sys.executable, TRAIN, *settings, *quick, *sys.argv[1:]], check=True, stdout=sys.stderr)
    seconds = RunDirectory(path).metrics().groupby("name").value.median()
    return seconds["step_s"], seconds["snapshot_s"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        low, high = (measure(folder, ranks)[0] for ranks in ("[8]", "[64]"))
        step, snapshot = measure(folder, "[8,64]")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"machine: {device}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}")
    print(f"seconds a step: r=8 alone {low:.3f}, r=64 alone {high:.3f}, in company {step:.3f}")
    print(f"company / sum of both alone: {step / (low + high):.2f}")
    print(f"snapshots and checkpoint, every {EVERY} steps: {snapshot / (EVERY * step):.2%} of training time")


if __name__ == "__main__":
    main()
