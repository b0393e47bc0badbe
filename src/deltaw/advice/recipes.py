"""Recipes, and which one the validation examples choose."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deltaw.advice.judged import JudgedArm, Losses


@dataclass(frozen=True, eq=False)
class Recipe:
    """The arms of the task that differ in the seed alone.

    Attributes:
        arms: those that did not diverge, at least one, in the order of the config.
        unstable: whether others did.
    """

    arms: list[JudgedArm]
    unstable: bool

    @property
    def rank(self) -> int:
        """Of all its arms."""
        return self.arms[0].record["rank"]

    @property
    def lr(self) -> float:
        """Peak learning rate of all its arms."""
        return self.arms[0].record["lr"]

    @property
    def seeds(self) -> list[int]:
        """Of its arms."""
        return [arm.record["seed"] for arm in self.arms]

    @property
    def validation(self) -> float:
        """Mean over the seeds of the loss at the last validation, without those that diverged."""
        return float(np.mean([arm.validation for arm in self.arms]))

    @property
    def base(self) -> Losses:
        """Mean losses over the seeds before the first step; they differ where each arm has a head of its own."""
        return np.mean([arm.base for arm in self.arms], axis=0)

    @property
    def uncut(self) -> Losses:
        """Mean losses over the seeds after the last step."""
        return np.mean([arm.uncut for arm in self.arms], axis=0)

    @property
    def scale(self) -> str:
        """Scaling and alpha in words."""
        return f"{self.arms[0].record['scaling']} with alpha {self.arms[0].record['alpha']:g}"

    def by_validation(self) -> list[JudgedArm]:
        """The arms from the lowest loss at the last validation to the highest."""
        return sorted(self.arms, key=lambda arm: arm.validation)


def recipes_of(arms: Iterable[JudgedArm]) -> list[Recipe]:
    """All recipes of these arms of the task of which a seed did not diverge, in the order of their first arms."""
    found: dict[tuple[object, ...], list[JudgedArm]] = {}
    for arm in arms:
        found.setdefault(arm.recipe, []).append(arm)
    converged = [([arm for arm in of_one if not arm.diverged], of_one) for of_one in found.values()]
    return [Recipe(some, len(some) < len(of_one)) for some, of_one in converged if some]


def best(recipes: Iterable[Recipe]) -> Recipe | None:
    """The recipe with the lowest loss at the last validation, one without a divergence if there is any.

    Of equal ones it is the first; None if there are none.
    """
    return min(recipes, key=lambda one: (one.unstable, one.validation), default=None)
