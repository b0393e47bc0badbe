"""What is trained: the same by every side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RANKS = (8, 64)
VALIDATION = 128  # examples


@dataclass(frozen=True)
class Workload:
    """A base, data, and a length of training.

    Attributes:
        name: of the file of results.
        base: settings of `train.py` that name and load the base.
        data: settings of `train.py` that name the examples and prepare them.
        steps: of the optimiser.
        every: steps between snapshots of our side, each of which is evaluated in the second half of the training.
        mixed: products in bfloat16.
    """

    name: str
    base: tuple[str, ...]
    data: tuple[str, ...]
    steps: int
    every: int
    mixed: bool


def examples_of(folder: Path, about: Mapping[str, Any]) -> Sequence[str]:
    """Settings of `train.py` that read the examples, whose tokens are in the cache as those of peers are in files.

    Args:
        folder: of the workload, with what `prepare` wrote.
        about: what it says of the setting.
    """
    files = (f"data.path={folder}/train.jsonl", f"data.validation_path={folder}/validation.jsonl")
    same = (f"data.{name}={about[name]}" for name in ("batch", "max_length", "eos"))
    return ("data=jsonl", *files, *same, "data.validation=1", "data.judged=0", f"data.cache={folder}/cache")


def bundled(name: str, steps: int | None) -> Workload:
    """The bundled base and text in float32, 150 steps."""
    return Workload(name, (), (), steps or 150, 10, mixed=False)


def smollm2(model: Path, data: Path, steps: int | None) -> Workload:
    """A pretrained base in bfloat16 on prompts and completions of the user, 12 steps.

    Args:
        model: a folder with SmolLM2-135M-Instruct, or another Llama.
        data: JSON lines with `prompt` and `completion`.
        steps: of the optimiser; None for 12.
    """
    base = ("model=hub", f"model.path={model.absolute()}", "model.lr=3e-3", "model.dtype=bfloat16")
    data_set = ("data=jsonl", f"data.path={data.absolute()}", "data.max_length=160")
    return Workload("smollm2", (*base, "trainer.precision=bf16-mixed"), data_set, steps or 12, 12, mixed=True)
