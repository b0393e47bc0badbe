"""What arms in company and snapshots cost, as ratios measured in one run.

python benchmarks/training.py [overrides of train.py]

Trains r=8 alone, r=64 alone and both in company on the default base and text, 60 steps each, and prints a step's
time in company over the sum of both alone, and the share of training time that snapshots and checkpoints take at the
default interval.
"""

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning import Trainer

from deltaw import config
from deltaw.callback import RecordLosses, Snapshots
from deltaw.job import train

STEPS = 60
CONF = Path(__file__).parent.parent / "conf"


def timed(function: Callable[..., None], seconds: list[float]) -> Callable[..., None]:
    def call(*args: object) -> None:
        start = time.perf_counter()
        function(*args)
        seconds.append(time.perf_counter() - start)

    return call


def measure(folder: str, ranks: str, overrides: list[str]) -> tuple[float, float]:
    """Seconds a step without snapshots, and seconds of one snapshot of all arms with its checkpoint."""
    written: list[float] = []
    ends: list[float] = []

    class Clocked(Snapshots):
        _snapshot = timed(Snapshots._snapshot, written)
        _checkpoint = timed(Snapshots._checkpoint, written)

        def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
            super().on_train_batch_end(trainer, *args)  # type: ignore[arg-type]
            ends.append(time.perf_counter())

    import deltaw.job

    deltaw.job.Snapshots = Clocked
    RecordLosses._validate = lambda *_: None  # type: ignore[method-assign]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = [
            f"arms.ranks={ranks}",
            f"trainer.max_steps={STEPS}",
            "snapshots.every=20",
            f"run.dir={folder}/{ranks}",
        ]
        train(compose("train", settings + overrides))
    snapshots = STEPS // 20
    during = sum(written[1:])  # the first is step 0, before training
    return (ends[-1] - ends[0] - during) / (len(ends) - 1), during / snapshots


def main() -> None:
    config.register()
    with tempfile.TemporaryDirectory() as folder:
        alone = [measure(folder, ranks, sys.argv[1:]) for ranks in ("[8]", "[64]")]
        step, snapshot = measure(folder, "[8,64]", sys.argv[1:])
    every = 50
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"machine: {device}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}")
    print(f"seconds a step: r=8 alone {alone[0][0]:.3f}, r=64 alone {alone[1][0]:.3f}, in company {step:.3f}")
    print(f"company / sum of both alone: {step / sum(seconds for seconds, _ in alone):.2f}")
    print(f"snapshots and checkpoint, every {every} steps: {snapshot / (every * step):.2%} of training time")


if __name__ == "__main__":
    main()
