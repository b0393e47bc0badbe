"""What shortens a training step on a CPU, each part by itself: steps with it and without it take turns.

python benchmarks/step.py                        the bundled base in float32, and SmolLM2-135M's shape in bfloat16
python benchmarks/step.py --pairs 2 --out try.json

A step is the forward and backward pass of r=8 and r=64 on the same 16 examples of the bundled text. The second base has
random weights, which take as long. Results are in benchmarks/results/step.json.
"""

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from markdown_table import in_markdown
from results_file import RESULTS, Results, measured_on
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from deltaw.config.schema import register
from deltaw.data import packing
from deltaw.data.batches import Examples, StepBatches
from deltaw.model import gated_mlp, products, rms_norm, rotary, short_attention
from deltaw.model.examples_in_rows import examples_in_rows
from deltaw.model.loading import load_tokenizer
from deltaw.training.build import arms_of, base_of, corpus_of
from deltaw.training.memory import keep_freed_memory
from deltaw.training.task import LoraArms, task_with_arms

ROOT = Path(__file__).resolve().parent.parent
BUNDLED, SMOLLM2 = "the bundled base, float32", "SmolLM2-135M's shape, bfloat16"
STEPS = 8  # whose examples take turns, so that lengths differ

Without = Callable[[], AbstractContextManager[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16, help="steps with and without a part; half in bfloat16")
    parser.add_argument("--bases", nargs="+", choices=[BUNDLED, SMOLLM2], default=[BUNDLED, SMOLLM2])
    parser.add_argument("--out", type=Path, default=RESULTS / "step.json")
    given = parser.parse_args()
    register()
    keep_freed_memory()
    results = Results(given.out, **measured_on())
    for name in given.bases:
        with tempfile.TemporaryDirectory() as folder:
            task, batches = loaded(Path(folder), name)
        pairs = given.pairs if name == BUNDLED else max(2, given.pairs // 2)
        for part, without in parts(task).items():
            give_back_memory()
            lower, median, upper = compared(task, batches, without, pairs)
            bytes_kept = kept(task, batches()[0])
            with without():
                kept_without = kept(task, batches()[0])  # it may lay examples in other rows
            results.add(
                base=name,
                part=part,
                pairs=pairs,
                ratio=median,
                quartiles=[lower, upper],
                kept_mib=bytes_kept / 2**20,
                kept_without_mib=kept_without / 2**20,
            )
            print(f"{name}, {part}: {median:.3f}", flush=True)
    print(table(results.found), given.out, sep="\n\n")


def table(found: dict[str, Any]) -> str:
    """The gain of every part: time, with the range of the middle half of the pairs, and memory."""
    rows = [
        [
            row["base"],
            row["part"],
            f"{row['ratio']:.3f}",
            " to ".join(f"{ratio:.3f}" for ratio in row["quartiles"]),
            f"{row['kept_mib']:,.0f}",
            f"{row['kept_without_mib']:,.0f}",
        ]
        for row in found["results"]
    ]
    head = [
        "base",
        "part",
        "ratio of the times",
        "half of the pairs",
        "MiB kept for the backward pass, with",
        "without",
    ]
    return in_markdown(head, rows, words=2)


def give_back_memory() -> None:
    """What was freed goes back to the system: full logits, in between, would take up all of it piece by piece."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def loaded(folder: Path, name: str) -> tuple[LoraArms, Callable[[], list[dict[str, Tensor]]]]:
    """The two arms on a base, and what makes the batches of some steps."""
    words = ["arms.shadows=0", f"data.cache={folder}/cache", "data.packing=true"]
    if name == SMOLLM2:
        shape = LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49152,
            tie_word_embeddings=True,
        )
        LlamaForCausalLM(shape).bfloat16().save_pretrained(folder / "base")
        load_tokenizer("bundled").save_pretrained(folder / "base")
        words += ["model=hub", f"model.path={folder}/base", "model.dtype=bfloat16", "trainer.precision=bf16-mixed"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", words)
    tokenizer, arms = load_tokenizer(cfg.model.path), arms_of(cfg)
    corpus = corpus_of(cfg.data, cfg.task, tokenizer)
    _, task = task_with_arms(cfg, arms, base_of(cfg, tokenizer, corpus))
    examples = Examples(corpus, np.arange(512), task.objective.collate)
    steps = StepBatches(examples, arms, cfg.data.batch, cfg.data.batch, STEPS, 0, 1, packing=True)
    return task, lambda: [steps[number] for number in range(STEPS)]


def parts(task: LoraArms) -> dict[str, Without]:
    """What makes a step shorter, and the block in which it is left out."""
    found: dict[str, Without] = {
        "RMSNorm's derivative in closed form": partial(
            patch.object, rms_norm._RMSNorm, "apply", lambda x, weight, own, *_: own(x)
        ),
        "rotary positions in fewer passes": partial(
            patch.object, modeling_llama, rotary.NAME, getattr(modeling_llama, rotary.NAME).args[0]
        ),
        "a gated MLP's derivative from gate and up alone": partial(
            patch.object, gated_mlp, "_is_plain", lambda _: False
        ),
        "the end of the last layer at labels alone": partial(patch.object, task.objective, "tail", ()),
        "logits at labels alone": partial(patch.object, task.objective, "body", ()),
        "rows a quarter longer than the longest example": partial(patch.object, packing, "STRETCH", 1.0),
    }
    if task.base.dtype is torch.float32 and products.onednn_is_faster():
        found["products by oneDNN"] = partial(patch.object, products, "onednn_is_faster", lambda: False)
    found["all of these"] = partial(all_of, [*found.values()])
    if task.base.dtype is torch.bfloat16:
        found["attention by plain products"] = partial(patch.object, short_attention, "LONGEST", 0)
    return found


@contextmanager
def all_of(blocks: list[Without]) -> Iterator[None]:
    """A block in which several parts are left out."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block())
        yield


def compared(
    task: LoraArms, batches: Callable[[], list[dict[str, Tensor]]], without: Without, pairs: int
) -> tuple[float, float, float]:
    """Quartiles of the ratio of the seconds with a part to those without it, of steps on the same examples."""
    with_it = batches()
    with without():
        left_out = batches()
    ratios = []
    for number in range(-1, pairs):  # the first pair warms up
        place = number % STEPS
        ours = seconds(task, with_it[place])
        with without():
            theirs = seconds(task, left_out[place])
        ratios.append(ours / theirs)
    lower, median, upper = quantiles(ratios[1:], n=4, method="inclusive")
    return lower, median, upper


def seconds(task: LoraArms, batch: dict[str, Tensor]) -> float:
    """Of the forward and backward pass of a step."""
    start = perf_counter()
    loss(task, batch).backward()
    taken = perf_counter() - start
    task.zero_grad()
    return taken


def loss(task: LoraArms, batch: dict[str, Tensor]) -> Tensor:
    """Of all arms, as training computes it."""
    mixed = torch.autocast("cpu", torch.bfloat16) if task.base.dtype is torch.bfloat16 else nullcontext()
    with mixed, examples_in_rows(packed=True):
        return task.loss_sums(batch).sum()


def kept(task: LoraArms, batch: dict[str, Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, weights apart."""
    weights = {weight.untyped_storage().data_ptr() for weight in task.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = loss(task, batch)  # while it lives, no place in memory is taken twice
    del graph
    return sum(size for place, size in sizes.items() if place not in weights)


if __name__ == "__main__":
    main()
