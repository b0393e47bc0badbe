"""An arm as a record: what tells one LoRA on the base from another."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from deltaw.lora.peft_format import matching_key

SCALINGS = ("constant", "alpha/r", "rslora")
CONTROLS = ("shuffled", "random", "frozen_a")


@dataclass(frozen=True)
class Arm:
    """One LoRA on the base.

    Attributes:
        name: unique in a run, and holds everything that tells the run's arms apart; the first A is drawn from it.
        rank: r, rows of A and columns of B, where `rank_pattern` has no other.
        seed: of the order of the training examples; part of the name, so of the first A too.
        alpha: numerator of the scale, where `alpha_pattern` has no other.
        scaling: how the scale follows from alpha and rank: "constant" (alpha), "alpha/r" or "rslora" (alpha/√r).
        lr: peak learning rate.
        control: None, or what is done otherwise than in an arm of the task: "shuffled" and "random" are trained on
            completions that were dealt to other prompts, or that are random tokens; "frozen_a" is trained on the
            task, but A stays at its start and B alone learns.
        rank_pattern: ranks of some modules, by what PEFT matches their names with; the first that fits holds.
        alpha_pattern: the same for alpha.
        dropout: share of what A reads that is zeroed in training, in [0, 1).
        variant: the part of its name that tells of another alpha or scaling than the run's, and of patterns.
    """

    name: str
    rank: int
    seed: int
    alpha: float
    scaling: str
    lr: float
    control: str | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    variant: str = ""

    @property
    def scale(self) -> float:
        """The factor in ΔW = scale · B A, where no pattern has another rank or alpha."""
        return self._scale(self.alpha, self.rank)

    def rank_of(self, module: str) -> int:
        """r of one module."""
        return self.rank_pattern.get(matching_key(self.rank_pattern, module), self.rank)

    def alpha_of(self, module: str) -> float:
        """Numerator of the scale of one module."""
        return self.alpha_pattern.get(matching_key(self.alpha_pattern, module), self.alpha)

    def scale_of(self, module: str) -> float:
        """The factor in ΔW = scale · B A of one module."""
        return self._scale(self.alpha_of(module), self.rank_of(module))

    def _scale(self, alpha: float, rank: int) -> float:
        return alpha / {"constant": 1.0, "alpha/r": rank, "rslora": math.sqrt(rank)}[self.scaling]

    @property
    def head_seed(self) -> int:
        """What a classification head of its own is drawn from, where the base brings none."""
        return seed_of(self.name, "head")


def seed_of(arm: str, *of: object) -> int:
    key = "\0".join(map(str, (arm, *of)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
