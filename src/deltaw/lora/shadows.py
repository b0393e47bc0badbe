"""Shadows: factors that learn from an arm's inputs and errors under random signs, and that the model never reads.

Two arms share directions because of what they learned, and also because they read the same inputs. A shadow has the
arm's rank, start rule, optimiser, learning rate and clipping; it learns from the arm's own inputs and back-propagated
errors, each example's under a random sign, so that on average there is nothing to learn. What the shadows of two arms
share, the arms would share with nothing to learn.
"""

from collections.abc import Sequence
from dataclasses import replace

from deltaw.lora.arm import Arm, seed_from
from deltaw.run.record import SHADOW, name_of_shadow


def shadows_of(arms: Sequence[Arm], count: int) -> list[Arm]:
    """`count` shadows of each arm of the task, arm by arm; a control has none."""
    return [
        replace(arm, name=name_of_shadow(arm.name, n), control=SHADOW, shadow=n)
        for arm in arms
        if arm.control is None
        for n in range(1, count + 1)
    ]


def sign_of(shadow: str, example: int, epoch: int) -> int:
    """+1 or −1, each in half of all cases: the sign of an example's errors in an epoch, for the shadow of this name."""
    return 1 - 2 * (seed_from(shadow, example, epoch) & 1)
