"""Whether the verdict about merging agrees with the loss of the merged model, where both are known.

python benchmarks/merge.py runs/merge

Arms of r = 8 and 64 learn three tasks on the bundled base: the names of the functions that a function calls, the names
of its arguments, and lists of numbers in reverse. A pair's sum, ΔW₁ + ΔW₂, is then measured on 128 validation examples
of each task. What is there of an earlier start is not trained again.
"""

import argparse
import ast
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from markdown_table import in_markdown, in_words
from results_file import RESULTS, Results, measured_on
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from deltaw import compare, load_adapter
from deltaw.config.folder import BUNDLED
from deltaw.data.calls import Calls
from deltaw.report.merging import merges_of
from deltaw.run.directory import RunDirectory

HELD_OUT, STEPS, RANKS, BATCH = 128, 100, (8, 64), 32
ARMS = (("calls", 0), ("calls", 1), ("arguments", 1), ("numbers", 2))  # task and seed
WEIGHTS = "adapter_model.safetensors"
TWO_TASKS = ("calls, arguments (like prompts)", "calls, numbers (other prompts)", "arguments, numbers")
TWO_SEEDS = "two seeds of calls"

Update = Mapping[str, Tensor]  # ΔW by the module's name


@dataclass(frozen=True)
class Side:
    """One adapter of a pair: its folder, and the task that its sum with another is measured on."""

    folder: Path
    task: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "merge.json")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write_tasks(given.folder)
    runs = [(train(given.folder, task, seed), task, seed) for task, seed in ARMS]
    base, results = Base(given.folder), Results(given.out, **measured_on())
    results.note(steps=STEPS, held_out=HELD_OUT)
    for rank in RANKS:
        arms = [Side(RunDirectory(run).adapter(f"r{rank}-s{seed}").folder, task) for run, task, seed in runs]
        for name, left, right, both in pairs_of(arms, given.folder / f"made-r{rank}"):
            (found,) = merges_of(compare(left.folder, right.folder).merge)
            measured = [base.measured(left, right), *([base.measured(right, left)] if both else [])]
            results.add(pair=name, rank=rank, **asdict(found), losses=measured)
    print(table(results.found), given.out, sep="\n\n")


def table(found: dict[str, Any]) -> str:
    """Verdicts, what they rest on and what was kept: a row for each pair, with all ranks in a cell."""
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in found["results"]:
        pairs.setdefault(row["pair"], []).append(row)
    rows = [
        [
            pair,
            "; ".join(dict.fromkeys(f"`{row['verdict']}`" for row in ranks)),
            "; ".join(in_words(row["cosine"], ".2f") for row in ranks),
            "; ".join(f"{row['effect_on_left']:.2f}, {row['effect_on_right']:.2f}" for row in ranks),
            "; ".join(", ".join(in_words(losses["kept"], ".0%") for losses in row["losses"]) for row in ranks),
        ]
        for pair, ranks in pairs.items()
    ]
    return in_markdown(["ΔW₁ + ΔW₂", "verdict", "cosine", "effect on 1, on 2", "kept of 1, of 2"], rows, words=2)


def sentences(found: dict[str, Any]) -> str:
    """What an arm loses, by what the other one is, and the least that is kept where no interference is expected."""
    others: dict[str, Callable[[dict[str, Any]], bool]] = {
        "was turned to other inputs": lambda row: row["pair"].endswith("turned to other inputs"),
        "was turned to other outputs": lambda row: row["pair"].endswith("turned to other outputs"),
        "learned another task": lambda row: row["pair"] in TWO_TASKS,
        "has another seed": lambda row: row["pair"] == TWO_SEEDS,
    }
    lost = ", ".join(f"{_range(1 - one for one in _kept(found, of))} where it {what}" for what, of in others.items())
    least = min(_kept(found, lambda row: row["verdict"] == "apart"))
    return (
        f"The other arm takes this share of an arm's gain: {lost}. Every pair called `apart` kept at least "
        f"{math.floor(100 * least)} %."
    )


def _kept(found: dict[str, Any], of: Callable[[dict[str, Any]], bool]) -> list[float]:
    """The shares that arms of some pairs kept."""
    return [losses["kept"] for row in found["results"] if of(row) for losses in row["losses"]]


def _range(shares: Iterable[float]) -> str:
    """The smallest and the largest, in percent."""
    low, *_, high = sorted(shares)
    return f"{in_words(100 * low, '.0f')} to {in_words(100 * high, '.0f')} %"


def pairs_of(arms: Sequence[Side], folder: Path) -> Iterator[tuple[str, Side, Side, bool]]:
    """Pairs with their names, and whether the second arm of each has a gain of its own to keep."""
    calls, again, arguments, numbers = arms
    folder.mkdir(exist_ok=True)
    draw = torch.Generator().manual_seed(0)

    def made(name: str, of: Side, change: Callable[[str, Tensor], Tensor]) -> Side:
        return changed(of, folder / name, change)

    def turned(tensor: Tensor, inputs: bool) -> Tensor:
        """The factor on other inputs, or to other outputs."""
        width = tensor.shape[1 if inputs else 0]
        Q = torch.linalg.qr(torch.randn(width, width, generator=draw)).Q
        return tensor @ Q if inputs else Q @ tensor

    yield "a copy", calls, made("copy", calls, lambda name, tensor: tensor), True
    yield "B → −B", calls, made("negative", calls, lambda name, tensor: -tensor if "lora_B" in name else tensor), False
    yield "random factors", calls, made("random", calls, lambda name, tensor: like(tensor, draw)), False
    for side in (calls, arguments, numbers):
        inputs = made(f"inputs-{side.task}", side, lambda name, one: turned(one, True) if "lora_A" in name else one)
        yield f"{side.task}: turned to other inputs", side, inputs, False
        outputs = made(f"outputs-{side.task}", side, lambda name, one: turned(one, False) if "lora_B" in name else one)
        yield f"{side.task}: turned to other outputs", side, outputs, False
    tenth = made("tenth", arguments, lambda name, tensor: tensor / 10 if "lora_B" in name else tensor)
    yield "calls, and a tenth of arguments", calls, tenth, True
    for name, left, right in zip(TWO_TASKS, (calls, calls, arguments), (arguments, numbers, numbers), strict=True):
        yield name, left, right, True
    yield TWO_SEEDS, calls, again, True


def write_tasks(folder: Path) -> None:
    """The same functions with two questions, and lists of numbers, as JSON lines."""
    pairs = [(pair, names) for pair in Calls().pairs if (names := arguments_of(pair.prompt))]
    random.Random(0).shuffle(pairs)
    rows = {
        "calls": [{"prompt": pair.prompt, "completion": pair.completion} for pair, _ in pairs],
        "arguments": [
            {"prompt": pair.prompt.replace("\n\ncalls = (", "\n\narguments = ("), "completion": f"{', '.join(names)})"}
            for pair, names in pairs
        ],
        "numbers": [reversed_numbers(random.Random(seed)) for seed in range(len(pairs))],
    }
    for task, of_task in rows.items():
        for part, some in (("validation", of_task[:HELD_OUT]), ("train", of_task[HELD_OUT:])):
            text = "".join(json.dumps(row) + "\n" for row in some)
            (folder / f"{task}-{part}.jsonl").write_text(text, encoding="utf-8")


def reversed_numbers(draw: random.Random) -> dict[str, str]:
    """A list of three to eight numbers below 100, and the same backwards."""
    numbers = [str(draw.randrange(100)) for _ in range(draw.randint(3, 8))]
    return {"prompt": f"numbers: {', '.join(numbers)}\nreversed: ", "completion": f"{', '.join(numbers[::-1])}\n"}


def arguments_of(prompt: str) -> list[str]:
    """Names of the arguments of the function in a prompt."""
    (function,) = ast.parse(prompt.rpartition("\n\n")[0]).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    found = function.args
    return [one.arg for one in (*found.posonlyargs, *found.args, *found.kwonlyargs)]


def train(folder: Path, task: str, seed: int) -> Path:
    """Train an arm of each rank, unless they are there; their run."""
    run = folder / f"{task}-s{seed}"
    settings = {
        "run.dir": run,
        "data": "jsonl",
        "data.path": folder / f"{task}-train.jsonl",
        "data.validation_path": folder / f"{task}-validation.jsonl",
        "data.judged": 0,
        "data.max_length": 192,
        "data.batch": 16,
        "arms.ranks": f"[{','.join(map(str, RANKS))}]",
        "arms.seeds": f"[{seed}]",
        "arms.shadows": 0,
        "truncate": "[]",
        "trainer.max_steps": STEPS,
        "trainer.accelerator": "cpu",
    }
    command = [sys.executable, "-m", "deltaw", "train", *(f"{key}={value}" for key, value in settings.items())]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return run


def changed(side: Side, folder: Path, change: Callable[[str, Tensor], Tensor]) -> Side:
    """The adapter with each tensor changed, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(side.folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / "adapter_config.json").write_bytes((side.folder / "adapter_config.json").read_bytes())
    return Side(folder, side.task)


def like(tensor: Tensor, draw: torch.Generator) -> Tensor:
    """Random numbers with the norm of a tensor."""
    found = torch.randn(tensor.shape, generator=draw)
    return found * tensor.norm() / found.norm()


class Base:
    """The bundled base, which updates are added to, and the held-out examples of both tasks."""

    def __init__(self, folder: Path):
        self.model = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32).eval()
        self.weights = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
        self.examples: dict[str, list[tuple[list[int], int]]] = {}
        for task in {task for task, _ in ARMS}:
            lines = (folder / f"{task}-validation.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [[tokenizer(text).input_ids for text in json.loads(line).values()] for line in lines]
            self.examples[task] = [(prompt + completion, len(prompt)) for prompt, completion in rows]

    def measured(self, one: Side, other: Side) -> dict[str, float]:
        """Losses on the task of `one`: of the base, of `one`, and of its sum with `other`; and the gain kept."""
        base, alone, together = (self.loss(one.task, *sides) for sides in ([], [one], [one, other]))
        return {"base": base, "alone": alone, "sum": together, "kept": (base - together) / (base - alone)}

    @torch.no_grad()
    def loss(self, task: str, *sides: Side) -> float:
        """Mean loss of the base with the sum of some adapters, in nats per token of the completions."""
        self.model.load_state_dict(self.weights, strict=False)
        for side in sides:
            for module, update in update_of(side.folder).items():
                self.model.get_submodule(module).weight += update
        summed, count = 0.0, 0
        for start in range(0, HELD_OUT, BATCH):
            batch = self.examples[task][start : start + BATCH]
            tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in batch], batch_first=True)
            labels = tokens.clone()
            for row, (ids, prompt) in zip(labels, batch, strict=True):
                row[:prompt] = row[len(ids) :] = -100
            logits = self.model(input_ids=tokens).logits[:, :-1]  # what is padded stands behind the labels
            summed += float(cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"))
            count += int((labels[:, 1:] != -100).sum())
        return summed / count


def update_of(folder: Path) -> Update:
    """ΔW by module."""
    adapter = load_adapter(folder)
    return {site.module: lora.scale * adapter.B(site) @ adapter.A(site) for site, lora in adapter.sites.items()}


if __name__ == "__main__":
    main()
