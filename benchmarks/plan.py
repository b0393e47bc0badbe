"""Planned memory and FLOPs beside those of a real step, and what a plan of GPT-3's shape costs.

python benchmarks/plan.py
python benchmarks/plan.py --out try.json model=hub model.path=FOLDER      another base, or other settings of train.py

Takes one step of the bundled base, or of the model given, in float32 and bfloat16, with and without gradient
checkpointing. On a GPU the peak is the allocator's, elsewhere that of all storages alive at once.
"""

import argparse
import json
import subprocess
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from markdown_table import in_markdown, in_words
from omegaconf import DictConfig
from results_file import RESULTS, Results, machine_of, measured_on
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from whole_run import GIB, Process

from deltaw.config.schema import register
from deltaw.data.example import Example
from deltaw.data.packing import packed_batch
from deltaw.lora.layers import Moment, parameters_of, set_moment
from deltaw.model.examples_in_rows import examples_in_rows
from deltaw.model.loading import Base, load_base, load_tokenizer
from deltaw.plan.arithmetic import device_memory
from deltaw.plan.forecast import workload_of
from deltaw.training.build import arms_of
from deltaw.training.task import LoraArms, task_with_arms

ROOT = Path(__file__).resolve().parent.parent
GPT3 = ["plan=true", "model=gpt3", "data.max_length=2048", "data.batch=64", "trainer.devices=64", "device.memory=80"]
# To Linux, the most that this process held is held by those it starts: so a small one between them measures.
SMALL = "import json, sys; from whole_run import process; print(json.dumps(process(*sys.argv[1:])))"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Alive(TorchDispatchMode):
    """Bytes of all storages that operators made and that are still there, now and at most.

    Args:
        weights: what was there before, and is not counted.
    """

    def __init__(self, weights: list[Tensor]):
        super().__init__()
        self.now = self.most = 0
        self.seen = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in [leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]:
            if storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def peak_of_a_step(task: LoraArms, batch: dict[str, Tensor], mixed: bool) -> float:
    """Bytes at most, in a third step: gradients and moments are there by then.

    Args:
        task: on its device.
        batch: of a step, there too.
        mixed: compute in bfloat16, as under `bf16-mixed`.
    """
    signs = torch.ones(len(batch["input_ids"]), 1, max(arm.shadow for arm in task.learners), dtype=torch.long)
    set_moment(task.base, Moment(signs=signs.to(task.device)))  # or shadows have no gradients and no moments
    trained = [weight for k in range(len(task.learners)) for weight in parameters_of(task.base, k)]
    optimizer = torch.optim.AdamW(trained)
    weights = [*task.base.parameters(), *task.base.buffers()]
    alive = None if task.device.type == "cuda" else Alive(weights)
    with alive or nullcontext():
        for _ in range(3):
            if alive:
                alive.most = alive.now
            else:
                torch.cuda.reset_peak_memory_stats()
            with torch.autocast(task.device.type, torch.bfloat16, enabled=mixed):
                loss = task.loss_sums(batch).sum()
            loss.backward()
            most = sum(w.nbytes for w in weights) + alive.most if alive else torch.cuda.max_memory_allocated()
            optimizer.step()
    return most


def compare(cfg: DictConfig, base: Base, device: str) -> tuple[float, float]:
    """Planned bytes of a step of `cfg`, and the bytes of a real one on `device` with `base`."""
    arms = arms_of(cfg)
    rows = cfg.data.micro_batch or cfg.data.batch
    planned = device_memory(workload_of(cfg, arms), 1, rows, cfg.model.gradient_checkpointing).total
    task = task_with_arms(cfg, arms, base)[1].to(device)
    learnt = [5] * (cfg.data.max_length - 1)  # as many as a row can have
    examples, collate = [Example([5], learnt, learnt)] * rows, task.objective.collate
    made = (
        packed_batch([examples] * len(arms), collate, limit=0)
        if task.objective.packs
        else collate(examples * len(arms))
    )
    batch = {name: tensor.to(device) for name, tensor in made.items()}
    with examples_in_rows(task.objective.packs):
        return planned, peak_of_a_step(task, batch, cfg.trainer.precision == "bf16-mixed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of train.py")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/plan.json")
    given = parser.parse_intermixed_args()
    if given.out is None and given.overrides:
        parser.error("other settings take --out: benchmarks/results/plan.json is of the bundled base")
    register()
    results = Results(
        given.out or RESULTS / "plan.json", **measured_on(torch.cuda.get_device_name() if DEVICE == "cuda" else None)
    )
    results.note(gpt3=planned_gpt3())
    for dtype in ("float32", "bfloat16"):
        for checkpointing in (False, True):
            words = [*given.overrides, f"model.dtype={dtype}", f"model.gradient_checkpointing={checkpointing}"]
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                cfg = compose("train", words)
            base = load_base(cfg.model.path, load_tokenizer(cfg.model.path), dtype, checkpointing)
            planned, measured = (size / 2**20 for size in compare(cfg, base, DEVICE))
            results.add(dtype=dtype, checkpointing=checkpointing, planned_mib=planned, measured_mib=measured)
    print(table(results.found), results.file, sep="\n\n")


def planned_gpt3() -> dict[str, Any]:
    """What a plan of GPT-3's shape costs, as a whole process: imports included."""
    command = [sys.executable, "-c", SMALL, str(ROOT / "train.py"), *GPT3]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", check=True, stdout=subprocess.PIPE)
    took = Process(*json.loads(done.stdout))
    return {"seconds": took.wall_s, "gib": took.peak_bytes / GIB, "command": ["train.py", *GPT3]}


def table(found: dict[str, Any]) -> str:
    """The peak of a step, planned and measured."""
    rows = [
        [
            row["dtype"],
            "yes" if row["checkpointing"] else "no",
            f"{row['planned_mib']:,.0f}",
            f"{row['measured_mib']:,.0f}",
            in_words(row["planned_mib"] / row["measured_mib"] - 1, "+.0%"),
        ]
        for row in found["results"]
    ]
    return in_markdown(
        ["dtype", "checkpointing", "planned, MiB", "measured, MiB", "planned / measured − 1"], rows, words=2
    )


def sentence(found: dict[str, Any]) -> str:
    """What a plan of GPT-3's shape costs."""
    cost = found["gpt3"]
    return (
        f"The shape of GPT-3 on 64 devices takes {cost['seconds']:.0f} s and {cost['gib']:.1f} GiB on "
        f"{machine_of(found)}:"
    )


if __name__ == "__main__":
    main()
