"""The pairs of all seeds, and of their shadows, that tell what left and right share because of what they learned.

Arms of one seed take their examples in the same order, and share more for that: on the bundled base φ(1, 1) on A is
0.33 beyond chance for two ranks of one seed, and 0.21 for two ranks of two seeds. Their shadows, with other signs, do
not show it. So left of each seed is compared with right of every other seed, as soon as there are two.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, product

from deltaw.analysis.compare import Pairing
from deltaw.analysis.snapshot import Snapshot, snapshot_of
from deltaw.run.adapter import Adapter


@dataclass(frozen=True)
class SeedPairs:
    """The pairs of one seed of left and one of right. Each list has one pair for each number of a shadow.

    Attributes:
        seeds: of left and of right; None outside of a run.
        pair: left with right.
        control: the control pair, left's shadow with right's shadow; empty without shadows, as the next two are.
        left_shadow: left's shadow with right.
        right_shadow: left with right's shadow.
    """

    seeds: tuple[int, int] | None
    pair: Pairing
    control: list[Pairing] = field(default_factory=list)
    left_shadow: list[Pairing] = field(default_factory=list)
    right_shadow: list[Pairing] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """The pairs of all seeds.

    Attributes:
        seeds: the pairs of each two seeds, in order.
        other_seed: two seeds of left's settings, and two seeds of right's settings, in all combinations.
        one_order: whether left and right of each pair took their examples in the same order.
    """

    seeds: list[SeedPairs]
    other_seed: list[Pairing]
    one_order: bool

    @property
    def arms(self) -> list[Adapter]:
        """Every arm of the pairs, each once."""
        sides = [getattr(seed.pair, side) for side in ("left", "right") for seed in self.seeds]
        return list({(arm.name, arm.folder): arm for arm in sides}.values())

    def pairings(self) -> Iterator[Pairing]:
        """All pairs, without cells."""
        for seed in self.seeds:
            yield from _without_cells([seed.pair, *seed.control, *seed.left_shadow, *seed.right_shadow])
        yield from _without_cells(self.other_seed)


def study_of(left: Adapter, right: Adapter) -> Study:
    """The pairs of the arms that differ from left and right in the seed alone, and of their shadows.

    Left of each seed is paired with right of every other seed. Left and right themselves are the only pair where they
    have one seed in common and no other, where one of them is of no run, and where they are two steps of one arm.
    """
    one, other = snapshot_of(left), snapshot_of(right)
    if one is None or other is None:
        return Study([SeedPairs(None, Pairing(left, right))], [], one_order=False)
    lefts, rights = _by_seed(one, left), _by_seed(other, right)
    two_seeds = [*_two_seeds(lefts), *_two_seeds(rights)]
    pairs = [_seed_pairs(lefts[seed], rights[next_]) for seed, next_ in product(lefts, rights) if seed != next_]
    if not pairs or (one.run.path, one.record["name"]) == (other.run.path, other.record["name"]):
        data = [snapshot.run.record.data.get("fingerprint") for snapshot in (one, other)]
        return Study([_seed_pairs(left, right)], two_seeds, one_order=data[0] == data[1])
    return Study(pairs, two_seeds, one_order=False)


def control_pairs(pairing: Pairing) -> list[Pairing]:
    """The control pairs of any two adapters: the n-th shadow of one with the n-th of the other, for every n."""
    return _seed_pairs(pairing.left, pairing.right).control


def _seed_pairs(left: Adapter, right: Adapter) -> SeedPairs:
    one, other = snapshot_of(left), snapshot_of(right)
    pair = Pairing(left, right)
    if one is None or other is None:
        return SeedPairs(None, pair)
    shadows = list(zip(one.shadows(), other.shadows(), strict=False))
    return SeedPairs(
        (one.record["seed"], other.record["seed"]),
        pair,
        control=[Pairing(*both) for both in shadows],
        left_shadow=[Pairing(shadow, right) for shadow, _ in shadows],
        right_shadow=[Pairing(left, shadow) for _, shadow in shadows],
    )


def _by_seed(snapshot: Snapshot, adapter: Adapter) -> dict[int, Adapter]:
    """The adapter and those that differ from it in the seed alone, at the same step, by seed."""
    return snapshot.by("seed") | {snapshot.record["seed"]: adapter}


def _two_seeds(by_seed: dict[int, Adapter]) -> list[Pairing]:
    adapters = [adapter for _, adapter in sorted(by_seed.items())]
    return [Pairing(*both) for both in combinations(adapters, 2)]


def _without_cells(pairings: Iterable[Pairing]) -> Iterator[Pairing]:
    return (replace(pairing, cells=False) for pairing in pairings)
