"""Planned memory and FLOPs beside those of a real step, and what a plan of GPT-3's shape costs.

python benchmarks/plan.py [overrides of train.py]

Takes one step of the bundled base, or of the model given, in float32 and bfloat16, with and without gradient
checkpointing. On a GPU the peak is the allocator's, elsewhere that of all storages alive at once.
"""

import os
import platform
import subprocess
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    register()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, torch {torch.__version__}\n\n| base | checkpointing | planned, MiB | measured, MiB | |")
    print("| --- | --- | ---: | ---: | ---: |")
    for dtype in ("float32", "bfloat16"):
        for checkpointing in (False, True):
            words = [*sys.argv[1:], f"model.dtype={dtype}", f"model.gradient_checkpointing={checkpointing}"]
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                cfg = compose("train", words)
            base = load_base(cfg.model.path, load_tokenizer(cfg.model.path), dtype, checkpointing)
            planned, measured = compare(cfg, base, DEVICE)
            sizes = f"{planned / 2**20:,.1f} | {measured / 2**20:,.1f} | {planned / measured - 1:+.1%}"
            print(f"| {dtype} | {checkpointing} | {sizes} |", flush=True)
    start = perf_counter()
    child = subprocess.Popen([sys.executable, "train.py", *GPT3], cwd=ROOT, stdout=subprocess.PIPE)
    printed = child.stdout.read().decode() if child.stdout else ""
    _, _, used = os.wait4(child.pid, 0)
    seconds = f"{perf_counter() - start:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of one core"
    print(f"\nGPT-3's shape: {seconds}, {used.ru_maxrss / 2**10:,.0f} MiB, imports included\n\n{printed}")


if __name__ == "__main__":
    main()
