"""What an analysis is about: two adapters, and what the runs that they come from have besides."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from deltaw.adapter import Adapter, Site
from deltaw.cli import UserError
from deltaw.losses import losses_of
from deltaw.run import ArmRecord, RunDirectory
from deltaw.study import Pairing
from deltaw.weight import Weight, find_weight, read_weight


@dataclass(frozen=True)
class Subject:
    """The two adapters to compare, and where the base is, if not where their run or config says."""

    left: Adapter
    right: Adapter
    base: Path | None = None

    @property
    def pairing(self) -> Pairing:
        return Pairing(self.left, self.right)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Of all arms of the runs that left and right come from: see `losses_of`."""
        return losses_of([self.left, self.right])

    def controls(self) -> list[Pairing]:
        """Left against each control of the right arm: same rank, seed and learning rate, at the same step."""
        found = self._record(self.right)
        if not found or found[1]["control"] is not None:
            return []
        run, record = found
        names = [arm["name"] for arm in run.record["arms"] if arm["control"] and _settings(arm) == _settings(record)]
        return [Pairing(self.left, self._at(run, name), cells=False) for name in names]

    def two_seeds(self) -> Pairing:
        """Two arms of one rank and learning rate that differ in the seed: left and right, or right and the next seed.

        Raises:
            UserError: there is no such arm.
        """
        left, right = self._record(self.left), self._record(self.right)
        if left and right and _settings(left[1], seed=0) == _settings(right[1], seed=0):
            return self.pairing
        if right is None:
            raise UserError(f"two seeds of one rank are compared, and {self.right.name} is no arm of a run: train them")
        run, record = right
        for arm in run.record["arms"]:
            alike = _settings(arm, seed=0) == _settings(record, seed=0) and arm["control"] == record["control"]
            if alike and arm["seed"] != record["seed"]:
                return Pairing(self.right, self._at(run, arm["name"]))
        raise UserError(
            f"two seeds of one rank are compared, and {run.path} has one of r={record['rank']}: train with "
            "arms.seeds=[0,1]"
        )

    def over_time(self) -> list[Pairing]:
        """Each step of either arm against its last and against the next one.

        Raises:
            UserError: neither arm has three snapshots.
        """
        pairings = []
        for side in (self.left, self.right):
            steps = self._steps(side) if side.origin else []
            pairings += [Pairing(step, steps[-1], cells=False, drawn=False) for step in steps[:-1]]
            pairings += [Pairing(one, next_, cells=False, drawn=False) for one, next_ in pairwise(steps[:-1])]
        if not pairings:
            raise UserError(f"steps of one arm are compared, and {self.left.name} and {self.right.name} have one each")
        return pairings

    def ranks(self) -> list[Adapter]:
        """Arms of the right one's run with its seed and learning rate, by rank; without a run, left and right."""
        if not (found := self._record(self.right)):
            return sorted([self.left, self.right], key=lambda side: max(lora.rank for lora in side.sites.values()))
        run, record = found
        arms = [
            arm
            for arm in run.record["arms"]
            if _settings(arm, rank=0) == _settings(record, rank=0) and arm["control"] == record["control"]
        ]
        return [self._at(run, arm["name"]) for arm in sorted(arms, key=lambda arm: arm["rank"])]

    def weight(self, site: Site) -> Float[Tensor, "d_out d_in"]:
        """Read the frozen weight of a site.

        Raises:
            UserError: the base is not known, or has no such weight, or several.
        """
        return self.right.sites[site].rows_of(read_weight(self.find_weight(site)))

    def find_weight(self, site: Site) -> Weight:
        """Where the frozen weight of a site's layer lies. Raises as `weight` does."""
        origin = self.right.origin
        if (
            self.base is None
            and origin
            and (found := RunDirectory(origin.run).record.get("weights", {}).get(site.module))
        ):
            return Weight(found["file"], found["tensor"], (found["rows"][0], found["rows"][1]), found["transposed"])
        folder = self.base or Path(self.right.base)
        if not folder.is_dir():
            raise UserError(f"W is read from the base, and {str(folder)!r} is no folder here: give base=")
        B = self.right.tensors[site][1]
        return find_weight(
            folder, site.module, (B.shape[0], self.right.sites[site].d_in), transposed=self.right.transposed
        )

    def _record(self, side: Adapter) -> tuple[RunDirectory, ArmRecord] | None:
        if side.origin is None:
            return None
        run = RunDirectory(side.origin.run)
        return run, run.arms[side.origin.arm]

    def _at(self, run: RunDirectory, arm: str) -> Adapter:
        """Another arm of a run, at the step of the right one; under the run's name where right is."""
        assert self.right.origin is not None
        return run.adapter(arm, self.right.origin.step)

    def _steps(self, side: Adapter) -> list[Adapter]:
        assert side.origin is not None
        run = RunDirectory(side.origin.run)
        return [run.adapter(side.origin.arm, step) for step in run.steps(side.origin.arm) if step <= side.origin.step]


def _settings(arm: ArmRecord, **fixed: int) -> tuple[object, ...]:
    """What two arms have in common that differ in nothing else; what is `fixed` may differ."""
    return tuple((arm | fixed)[key] for key in ("rank", "seed", "lr"))
