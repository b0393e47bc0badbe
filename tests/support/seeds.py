"""Values of seeds, each from a pair of this seed alone."""

from collections.abc import Sequence

from deltaw.maths.seeds import OverSeeds, over_seeds


def single_seeds(values: Sequence[float]) -> OverSeeds:
    """The mean of one value per seed."""
    return over_seeds([(seed, seed) for seed in range(len(values))], values)
