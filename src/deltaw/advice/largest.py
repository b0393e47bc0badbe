"""The arms of the largest rank, and which of them an answer about cuts is about."""

from collections.abc import Iterator

from deltaw.advice.answer import Ship
from deltaw.advice.judged import Judged, JudgedArm
from deltaw.advice.recipes import Recipe, best, recipes_of


class Largest:
    """The arms of the largest rank, and of its recipe that validates best those that were cut and dropped."""

    def __init__(self, judged: Judged):
        self.rank = max(arm.record["rank"] for arm in judged.task)
        self.recipe: Recipe | None = best(one for one in recipes_of(judged.task) if one.rank == self.rank)
        self.arms: list[JudgedArm] = self.recipe.by_validation() if self.recipe else []

    @property
    def cut_arm(self) -> JudgedArm | None:
        """The best arm that was cut."""
        return next((arm for arm in self.arms if arm.cuts), None)

    @property
    def cut_recipe(self) -> list[JudgedArm]:
        """The arms that were cut, in the order of the config."""
        return [arm for arm in self.recipe.arms if arm.cuts] if self.recipe else []

    @property
    def dropped_arm(self) -> JudgedArm | None:
        """The best arm whose sites were dropped."""
        return next((arm for arm in self.arms if arm.dropped), None)

    def remarks(self, ship: Ship | None) -> Iterator[str]:
        """What was not measured, and why nothing can be shipped."""
        if not self.arms:
            yield f"Every arm of r={self.rank} diverged, so no cut can be advised: train with lower arms.lrs."
        elif not self.cut_arm:
            if self.rank > 1:
                yield (
                    f"No cut of r={self.rank} was judged: start the same command again with truncate=[1,2,4,8,16,32]; "
                    "it judges without training."
                )
            else:
                yield "Rank 1 is the smallest, so there is no cut to ship: train larger arms.ranks as well."
        elif ship is None:
            yield f"No cut of {self.cut_arm.name} can be advised: its gain is not clear, or the largest cut diverged."
        elif self.cut_arm is not self.arms[0]:
            yield (
                f"{self.arms[0].name} validates best and was not cut, because its run by itself has another best "
                f"recipe: {self.cut_arm.name} stands for it."
            )
