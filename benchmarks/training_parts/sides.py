"""Who trains, and how: each as whole processes, with a file of what they took."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from whole_run import Turns, first_step, last_step, once, only_steps, process

from training_parts.workloads import RANKS, Workload, examples_of

BENCHMARKS = Path(__file__).resolve().parents[1]
OURS, DEFAULTS, BEST, TRL = "deltaw", "hugging-face", "hugging-face-best", "trl"
PAIRED = "hugging-face-paired"  # begins where our arms do, and learns the same examples at every step
EAGER = "hugging-face-best-eager"  # in bfloat16, the backward pass of SDPA on a CPU is slower than plain products
TITLES = {
    OURS: "`deltaw train` (both in company)",
    DEFAULTS: "Hugging Face Trainer + PEFT (defaults)",
    PAIRED: "Hugging Face Trainer + PEFT (defaults, the same start and order)",
    BEST: "Hugging Face Trainer + PEFT (at its best)",
    EAGER: "Hugging Face Trainer + PEFT (at its best, eager attention)",
    TRL: "TRL's SFTTrainer + PEFT (at its best)",
}
# What a side gets besides the setting that is everyone's.
QUIET = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    DEFAULTS: {},
    PAIRED: {"train_sampling_strategy": "sequential"},
    BEST: {**QUIET, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"},
}
ARGUMENTS[EAGER] = ARGUMENTS[BEST]
ARGUMENTS[TRL] = ARGUMENTS[BEST] | {"gradient_checkpointing": False}  # TRL's default is True


@dataclass(frozen=True)
class Trained:
    """What a whole process took while it ran, and what it left.

    Attributes:
        wall_s: from its command to its end.
        start_up_s: from its command to its first step.
        training_s: from there to the end of its last step.
        peak_bytes: most memory of the process that was resident.
        folders: the PEFT folder of each arm, by step.
        reached_s: from its command until the folders of a step were written, by step; of our side alone.
        told: its command or arguments.
    """

    wall_s: float
    start_up_s: float
    training_s: float
    peak_bytes: int
    folders: dict[str, dict[str, str]]
    reached_s: dict[str, float]
    told: Any


def measure(
    workload: Workload, folder: Path, side: str, seed: int, python: str, turns: Turns | None = None
) -> list[Trained]:
    """The processes of a side for one seed, one after another; each that has been measured before is read.

    Args:
        workload: what they train.
        folder: of the workload, with what `prepare` wrote.
        side: who trains.
        seed: of the start and of the order of examples.
        python: the interpreter of the side.
        turns: its processes run in these; None if no other side runs.
    """
    if side == OURS:
        places = {folder / f"{side}-s{seed}": partial(ours, workload, folder, seed=seed, turns=turns)}
    else:
        train = partial(theirs, workload, folder, side=side, seed=seed, python=python, turns=turns)
        places = {folder / f"{side}-s{seed}-r{rank}": partial(train, rank=rank) for rank in RANKS}
    return [Trained(**once(place, partial(one, place=place))) for place, one in places.items()]


def ours(workload: Workload, folder: Path, place: Path, seed: int, turns: Turns | None) -> Trained:
    """Both arms by `train.py`, without shadows, without judging, and with one example for the validation it has to do.

    Step 0 ends with a snapshot before the first step, and so does the last step: their files tell the times.
    """
    about, run = json.loads((folder / "about.json").read_text()), place / "run"
    arms = [f"arms.ranks=[{','.join(map(str, RANKS))}]", f"arms.seeds=[{seed}]", "arms.shadows=0"]
    settings = [*workload.base, *examples_of(folder, about), *arms, "trainer.accelerator=cpu"]
    settings += [*only_steps(run, workload.steps), f"snapshots.every={workload.every}"]
    ended = process(str(BENCHMARKS.parent / "train.py"), *settings, turns=turns)
    (place / "log.txt").write_text(ended.printed)
    folders: dict[str, dict[str, str]] = {f"r{rank}": {} for rank in RANKS}
    for rank in RANKS:
        for snapshot in sorted((run / "snapshots" / f"r{rank}-s{seed}").iterdir()):
            folders[f"r{rank}"][str(int(snapshot.name.removeprefix("step-")))] = str(snapshot)
    first, last = ended.by(first_step(run)), ended.by(last_step(run, workload.steps))
    reached = {step: ended.by(last_step(run, int(step))) for step in folders[f"r{RANKS[0]}"]}
    times = ended.wall_s, first, last - first
    return Trained(*times, ended.peak_bytes, folders, reached, ["python", "train.py", *settings])


def theirs(
    workload: Workload,
    folder: Path,
    place: Path,
    side: str,
    seed: int,
    rank: int,
    python: str,
    turns: Turns | None,
) -> Trained:
    """One arm by another library, which is told what `train.py` is told and nothing else but `ARGUMENTS`.

    One that is paired goes on from the adapter of our arm before its first step, and learns our examples step by step.
    """
    about = json.loads((folder / "about.json").read_text())
    start, tokens = None, folder / "train.tokens.json"
    if side == PAIRED:
        start = measure(workload, folder, OURS, seed, python)[0].folders[f"r{rank}"]["0"]
        tokens = folder / f"train-s{seed}.tokens.json"
        call("ordered", str(folder), str(seed))
    arguments = {
        "output_dir": str(place / "output"),
        "use_cpu": True,
        "bf16": workload.mixed,
        "max_steps": about["steps"],
        "per_device_train_batch_size": about["batch"],
        "learning_rate": about["lr"],
        "weight_decay": about["weight_decay"],
        "max_grad_norm": about["clip"],
        "seed": seed,
        **ARGUMENTS[side],
    }
    specification = {
        "library": "trl" if side == TRL else "transformers",
        "model": about["model"],
        "dtype": about["dtype"],
        "attention": "eager" if side == EAGER else None,
        "tokens": str(tokens),
        "warmup_steps": about["warmup_steps"],
        "start": start,
        "lora": {"r": rank, "lora_alpha": about["alpha"], "target_modules": ["q_proj", "v_proj"]},
        "arguments": arguments,
    }
    file = place / "specification.json"
    file.write_text(json.dumps(specification, indent=2))
    ended = process(str(BENCHMARKS / "training_parts" / "peer.py"), str(file), python=python, turns=turns)
    (place / "log.txt").write_text(ended.printed)
    found = json.loads((place / "found.json").read_text())
    folders = {f"r{rank}": {str(workload.steps): str(place / "adapter")}}
    first, last = ended.by(found["began"]), ended.by(found["ended"])
    times = ended.wall_s, first, last - first
    return Trained(*times, ended.peak_bytes, folders, {}, specification)


def call(module: str, *arguments: str) -> None:
    """Run one of our own parts to its end, in a process of its own: this one stays small.

    Raises:
        subprocess.CalledProcessError: it failed, and said why.
    """
    subprocess.run([sys.executable, "-m", f"training_parts.{module}", *arguments], cwd=BENCHMARKS, check=True)
