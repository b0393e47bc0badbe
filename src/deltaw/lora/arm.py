"""An arm: one LoRA on the base, by the settings that set it apart from others."""

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
        name: unique in a run; it holds everything that differs between the run's arms, and seeds the first A.
        rank: r, rows of A and columns of B, for modules that `rank_pattern` does not name.
        seed: of the order of the training examples; it is part of the name and so seeds the first A too.
        alpha: numerator of the scale, for modules that `alpha_pattern` does not name.
        scaling: how the scale follows from alpha and rank: "constant" (alpha), "alpha/r" or "rslora" (alpha/√r).
        lr: peak learning rate.
        control: None, or how the arm differs from an arm of the task. "shuffled" learns the completions of other
            prompts, "random" learns random tokens; "frozen_a" learns the task, but its A stays at its start and only
            B is trained. "shadow" learns what `deltaw.lora.shadows` says.
        rank_pattern: ranks of some modules, by names as PEFT matches them; the first that fits a module holds.
        alpha_pattern: the same for alpha.
        dropout: share of A's inputs that is zeroed in training, in [0, 1).
        variant: the part of the name for an alpha or a scaling other than the run's, and for patterns.
        shadow: n for the n-th shadow of an arm, counted from 1; 0 for an arm.
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
    shadow: int = 0

    @property
    def scale(self) -> float:
        """The factor in ΔW = scale · B A, for modules that no pattern names."""
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
        """Seed of the arm's classification head, for a base whose checkpoint has none."""
        return seed_from(self.name, "head")


def seed_from(*parts: object) -> int:
    """A seed of 64 bits that depends on all parts: names and numbers."""
    key = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
