"""The pairs that tell what left and right share because of the task: theirs and their shadows', over all seeds.

Arms of one seed take their examples in the same order, and share more for that: on the bundled base φ(1, 1) on A is
0.33 beyond chance for two ranks of one seed, and 0.21 for two ranks of two seeds. Their shadows, with other signs, do
not show it. So left of each seed is compared with right of the next seed, as soon as there are two.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations

from deltaw.analysis.compare import Pairing
from deltaw.analysis.snapshot import Snapshot, snapshot_of
from deltaw.run.adapter import Adapter


@dataclass(frozen=True)
class SeedPairs:
    """The pairs of one seed. Each list has one pair for each number of a shadow, and none without shadows.

    Attributes:
        seed: of left; None outside of a run.
        pair: left with right of the next seed, or of the same seed where there is one.
        control: the control pair, left's shadow with right's shadow.
        left_shadow: left's shadow with right.
        right_shadow: left with right's shadow.
    """

    seed: int | None
    pair: Pairing
    control: list[Pairing] = field(default_factory=list)
    left_shadow: list[Pairing] = field(default_factory=list)
    right_shadow: list[Pairing] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """The pairs of all seeds.

    Attributes:
        seeds: one for each seed that left and right both have, in order.
        other_seed: two seeds of left's settings, and two seeds of right's settings, in all combinations.
        one_order: whether left and right of each pair took their examples in the same order.
    """

    seeds: list[SeedPairs]
    other_seed: list[Pairing]
    one_order: bool

    def pairings(self) -> Iterator[Pairing]:
        """All pairs, without cells."""
        for seed in self.seeds:
            pairs = (seed.pair, *seed.control, *seed.left_shadow, *seed.right_shadow)
            yield from (replace(pairing, cells=False) for pairing in pairs)
        yield from self.other_seed


def study_of(left: Adapter, right: Adapter) -> Study:
    """The pairs of the arms that differ from left and right in the seed alone, these two among them, and their shadows.

    Left of each seed is paired with right of the next one, and left of the last seed with right of the first. If left
    and right have two different seeds, this pair decides how far the next seed is, so that it is among the pairs.
    """
    one, other = snapshot_of(left), snapshot_of(right)
    if one is None or other is None:
        return Study([SeedPairs(None, Pairing(left, right))], [], one_order=False)
    lefts, rights = _by_seed(one, left), _by_seed(other, right)
    seeds, asked = sorted(lefts.keys() & rights.keys()), (one.record["seed"], other.record["seed"])
    if not set(asked) <= set(seeds) or len(seeds) < 2:
        return Study([_seed_pairs(left, right)], [*_two_seeds(lefts), *_two_seeds(rights)], asked[0] == asked[1])
    shift = seeds.index(asked[1]) - seeds.index(asked[0]) or 1
    pairs = [_seed_pairs(lefts[seed], rights[seeds[(n + shift) % len(seeds)]]) for n, seed in enumerate(seeds)]
    return Study(pairs, [*_two_seeds(lefts), *_two_seeds(rights)], one_order=False)


def control_pairs(pairing: Pairing) -> list[Pairing]:
    """The control pairs of any two adapters: the n-th shadow of one with the n-th of the other, for every n."""
    return _seed_pairs(pairing.left, pairing.right).control


def _seed_pairs(left: Adapter, right: Adapter) -> SeedPairs:
    one, other = snapshot_of(left), snapshot_of(right)
    seed, pair = one.record["seed"] if one else None, Pairing(left, right)
    if one is None or other is None:
        return SeedPairs(seed, pair)
    shadows = list(zip(one.shadows(), other.shadows(), strict=False))
    return SeedPairs(
        seed,
        pair,
        control=[Pairing(*both) for both in shadows],
        left_shadow=[Pairing(shadow, right, cells=False) for shadow, _ in shadows],
        right_shadow=[Pairing(left, shadow, cells=False) for _, shadow in shadows],
    )


def _by_seed(snapshot: Snapshot, adapter: Adapter) -> dict[int, Adapter]:
    """The adapter and those that differ from it in the seed alone, at the same step, by seed."""
    others = {seed: snapshot.siblings([arm]) for seed, arm in snapshot.other_seeds().items()}
    return {seed: found[0] for seed, found in others.items() if found} | {snapshot.record["seed"]: adapter}


def _two_seeds(by_seed: dict[int, Adapter]) -> list[Pairing]:
    adapters = [adapter for _, adapter in sorted(by_seed.items())]
    return [Pairing(*both, cells=False) for both in combinations(adapters, 2)]
