"""How large everything is: on a GPU, and as toys on a CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Shape = dict[str, Any]  # settings of transformers' LlamaConfig

LLAMA_1B: Shape = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LLAMA_8B: Shape = LLAMA_1B | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}
SMALL: Shape = LLAMA_1B | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


@dataclass(frozen=True)
class Sizes:
    """What every part goes by.

    Attributes:
        device: "cuda" or "cpu".
        limits: seconds that each part may take, by its name, in the order in which they run.
        shapes: of the bases with random weights, by name; the first is the one that `profile` and
            `compile` train.
        ranks: of the two arms.
        company_tokens: of an arm in a step, each a measurement of `company`.
        plan_tokens: of a row, of which `plan` takes one for each arm.
        tokens: of a row, each a measurement of `speed`; the shortest is what `profile` and
            `compile` take.
        batch_tokens: of an arm in a step, in `speed`, `profile` and `compile`.
        warmup: steps before any is timed.
        steps: that are timed.
        short_steps: that are timed in `company`.
        product: width of the square matrices whose product tells what the device can do.
        pretraining: seconds that the pretraining of `deep96` may take.
        deep96: settings of `train.py` besides `experiment=deep96`.
    """

    device: str
    limits: Mapping[str, float]
    shapes: Mapping[str, Shape]
    ranks: tuple[int, int]
    company_tokens: tuple[int, ...]
    plan_tokens: int
    tokens: tuple[int, ...]
    batch_tokens: int
    warmup: int
    steps: int
    short_steps: int
    product: int
    pretraining: float
    deep96: Sequence[str] = field(default_factory=tuple)


# Six minutes in all.
LIMITS = {"tests": 50, "plan": 30, "speed": 85, "company": 40, "profile": 20, "compile": 45, "deep96": 90}

FULL = Sizes(
    device="cuda",
    limits=LIMITS,
    shapes={"Llama-3.2-1B": LLAMA_1B, "Llama-3.1-8B": LLAMA_8B},
    ranks=(8, 64),
    company_tokens=(128, 512, 2048),
    plan_tokens=1024,
    tokens=(512, 4096),
    batch_tokens=4096,
    warmup=2,
    steps=5,
    short_steps=20,
    product=8192,
    pretraining=20,
    deep96=("trainer.max_steps=100", "metrics.validate_every=100", "snapshots.every=100"),
)

TOY = Sizes(
    device="cpu",
    limits=dict.fromkeys(LIMITS, 300),  # a slow machine is no failure
    shapes={"small": SMALL, "small and deep": SMALL | {"num_hidden_layers": 4}},
    ranks=(2, 8),
    company_tokens=(16,),
    plan_tokens=64,
    tokens=(64,),
    batch_tokens=128,
    warmup=1,
    steps=2,
    short_steps=2,
    product=256,
    pretraining=1,
    deep96=(
        *("model.pretrain.layers=8", "model.pretrain.width=64", "model.pretrain.intermediate=96"),
        *("model.pretrain.heads=2", "model.pretrain.rows=2", "model.pretrain.muon=false"),
        *("trainer.max_steps=4", "data.validation=8", "data.batch=2"),
    ),
)
