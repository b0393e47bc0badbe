"""What an analysis is about: two adapters, and what the runs that they come from have besides."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from deltaw.analysis.compare import Pairing
from deltaw.analysis.losses import losses_of
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import ArmRecord, RunDirectory, settings_of
from deltaw.run.weights import Weight, find_weight, read_weight


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
        """Left against each control of the right arm, the same in all else, at the same step."""
        found = _record(self.right)
        if not found or found[1]["control"] is not None:
            return []
        run, record = found
        names = [
            arm["name"] for arm in run.record["arms"] if arm["control"] and settings_of(arm) == settings_of(record)
        ]
        return [Pairing(self.left, arm, cells=False) for arm in self._beside_right(run, names)]

    def two_seeds(self) -> Pairing:
        """Two arms that differ in the seed alone: left and right, or right and the next seed.

        Raises:
            UserError: there is no such arm.
        """
        left, right = _record(self.left), _record(self.right)
        if right is None:
            raise UserError(f"two seeds of one rank are compared, and {self.right.name} is no arm of a run: train them")
        run, record = right
        if left and _is_another_seed(left[1], record) and self._steps_agree():
            return self.pairing
        names = [arm["name"] for arm in run.record["arms"] if _is_another_seed(arm, record)]
        if not (others := self._beside_right(run, names)):
            raise UserError(
                f"two seeds of one rank are compared, and {run.path} has one of r={record['rank']} at this step: "
                "train with arms.seeds=[0,1]"
            )
        return Pairing(self.right, others[0])

    def over_time(self) -> list[Pairing]:
        """Each step of either arm against its last and against the next one.

        Raises:
            UserError: neither arm has two snapshots.
        """
        pairings = []
        for side in {side.folder: side for side in (self.left, self.right)}.values():
            steps = self._snapshots(side)
            pairings += [Pairing(step, steps[-1], cells=False, drawn=False) for step in steps[:-1]]
            pairings += [Pairing(one, next_, cells=False, drawn=False) for one, next_ in pairwise(steps[:-1])]
        if not pairings:
            raise UserError(f"steps of one arm are compared, and {self.left.name} and {self.right.name} have one each")
        return pairings

    def ranks(self) -> list[Adapter]:
        """Arms of the right one's run that differ from it in the rank alone, by rank; without a run, left and right."""
        if not (found := _record(self.right)):
            sides = {side.folder: side for side in (self.left, self.right)}.values()
            return sorted(sides, key=lambda side: max(lora.rank for lora in side.sites.values()))
        run, record = found
        arms = [
            arm
            for arm in run.record["arms"]
            if settings_of(arm, rank=0) == settings_of(record, rank=0) and arm["control"] == record["control"]
        ]
        return self._beside_right(run, [arm["name"] for arm in sorted(arms, key=lambda arm: arm["rank"])])

    def weight(self, site: Site) -> Float[Tensor, "d_out d_in"]:
        """Read the frozen weight of a site.

        Raises:
            UserError: the base is not known, or has no such weight, or several.
        """
        return self.right.sites[site].rows_of(read_weight(self.find_weight(site)))

    def find_weight(self, site: Site) -> Weight:
        """Where the frozen weight of a site's layer lies. Raises as `weight` does."""
        origin = self.right.origin
        if self.base is None and origin:
            found = RunDirectory(origin.run).record.get("weights", {}).get(site.module)
            if found and Path(found["file"]).is_file():
                rows = tuple((first, end) for first, end in found["rows"])
                return Weight(found["file"], found["tensor"], rows, found["transposed"])
        folder = self.base or Path(self.right.base or "the base, which the adapter does not name")
        if not folder.is_dir():
            raise UserError(f"W is read from the base, and {str(folder)!r} is no folder here: give base=")
        right = self.right
        shape = (right.tensors[site][1].shape[0], right.sites[site].d_in)
        return find_weight(folder, site.module, shape, right.transposed, right.split)

    def _beside_right(self, run: RunDirectory, arms: list[str]) -> list[Adapter]:
        """Those of a run's arms that have a snapshot at the step of the right one, named as that one is."""
        origin = self.right.origin
        assert origin is not None
        present = [arm for arm in arms if origin.step in run.steps(arm)]
        return [replace(run.adapter(arm, origin.step), name=_prefix(self.right) + arm) for arm in present]

    def _snapshots(self, side: Adapter) -> list[Adapter]:
        """Of the arm, up to the step that is compared."""
        origin = side.origin
        if origin is None:
            return []
        run = RunDirectory(origin.run)
        steps = [step for step in run.steps(origin.arm) if step <= origin.step]
        return [replace(run.adapter(origin.arm, step), name=_prefix(side) + origin.arm) for step in steps]

    def _steps_agree(self) -> bool:
        left, right = self.left.origin, self.right.origin
        return left is not None and right is not None and left.step == right.step


def told_apart(left: Adapter, right: Adapter) -> tuple[Adapter, Adapter]:
    """The two, under the names of their steps or of their runs as well where they are called alike."""
    if left.name != right.name or not (left.origin and right.origin):
        return left, right
    one, other = left.origin, right.origin
    if one.run == other.run:
        return replace(left, name=f"{left.name}@{one.step}"), replace(right, name=f"{right.name}@{other.step}")
    names = (one.run.name, other.run.name) if one.run.name != other.run.name else (str(one.run), str(other.run))
    return replace(left, name=f"{names[0]}/{left.name}"), replace(right, name=f"{names[1]}/{right.name}")


def _prefix(side: Adapter) -> str:
    """What `told_apart` has put before the name of an arm."""
    assert side.origin is not None
    return side.name.partition("@")[0].removesuffix(side.origin.arm)


def _record(side: Adapter) -> tuple[RunDirectory, ArmRecord] | None:
    if side.origin is None:
        return None
    run = RunDirectory(side.origin.run)
    return run, run.arms[side.origin.arm]


def _is_another_seed(one: ArmRecord, other: ArmRecord) -> bool:
    alike = settings_of(one, seed=0) == settings_of(other, seed=0) and one["control"] == other["control"]
    return alike and one["seed"] != other["seed"]
