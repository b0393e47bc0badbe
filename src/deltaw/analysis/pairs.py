"""The two adapters that an analysis compares, and the pairs that their runs offer besides."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from deltaw.analysis.compare import Pairing
from deltaw.analysis.losses import losses_of
from deltaw.config.folder import BUNDLED
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import RunDirectory
from deltaw.run.record import ArmRecord, settings_of
from deltaw.run.weights import Weight, find_weight, read_weight


@dataclass(frozen=True)
class AdapterPair:
    """The two adapters that an analysis compares.

    Attributes:
        base: folder of the base; None for the place that the run or the adapter's config names.
    """

    left: Adapter
    right: Adapter
    base: Path | None = None

    @property
    def pairing(self) -> Pairing:
        """Left with right."""
        return Pairing(self.left, self.right)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Losses of all arms of the runs that left and right come from: see `losses_of`."""
        return losses_of([self.left, self.right])

    def controls(self) -> list[Pairing]:
        """Left with each control of the right arm: the same rank, seed, learning rate and variant, at the same step."""
        right = _snapshot_of(self.right)
        if not right or right.record["control"] is not None:
            return []
        settings = settings_of(right.record)
        controls = [arm for arm in right.run.record.arms if arm["control"] and settings_of(arm) == settings]
        return [Pairing(self.left, control, cells=False) for control in right.siblings(controls)]

    def two_seeds(self) -> Pairing:
        """Two arms that differ only in the seed: left and right, or right and the next seed in its run.

        Raises:
            UserError: there is no such arm.
        """
        left, right = _snapshot_of(self.left), _snapshot_of(self.right)
        if right is None:
            raise UserError(f"two seeds of one rank are needed, and {self.right.name} is no arm of a run: train both")
        if left and _differ_in_seed(left.record, right.record) and left.step == right.step:
            return self.pairing
        others = right.siblings(arm for arm in right.run.record.arms if _differ_in_seed(arm, right.record))
        if not others:
            raise UserError(
                f"two seeds of one rank are needed, and {right.run.path} has one seed of r={right.record['rank']} at "
                f"step {right.step}: train with arms.seeds=[0,1]"
            )
        return Pairing(self.right, others[0])

    def over_time(self) -> list[Pairing]:
        """Each snapshot of either arm with the last one, and with the next one.

        Raises:
            UserError: neither arm has two snapshots.
        """
        pairings = []
        for side in self._sides:
            snapshot = _snapshot_of(side)
            steps = snapshot.up_to_here() if snapshot else []
            pairings += [Pairing(step, steps[-1], cells=False, input_draws=False) for step in steps[:-1]]
            pairings += [Pairing(step, later, cells=False, input_draws=False) for step, later in pairwise(steps[:-1])]
        if not pairings:
            raise UserError(
                f"two steps of one arm are needed, and {self.left.name} and {self.right.name} have one each"
            )
        return pairings

    def ranks(self) -> list[Adapter]:
        """Arms of right's run that differ from right only in the rank, by rank; without a run, left and right."""
        right = _snapshot_of(self.right)
        if not right:
            return sorted(self._sides, key=lambda side: max(lora.rank for lora in side.sites.values()))
        arms = [arm for arm in right.run.record.arms if _same_but(arm, right.record, rank=0)]
        return right.siblings(sorted(arms, key=lambda arm: arm["rank"]))

    def weight(self, site: Site) -> Float[Tensor, "d_out d_in"]:
        """Read the frozen weight of a site.

        Raises:
            UserError: the base is not known, or has no such weight, or several.
        """
        return self.right.sites[site].rows_of(read_weight(self.find_weight(site)))

    def find_weight(self, site: Site) -> Weight:
        """Where the frozen weight of a site's layer lies. Raises as `weight` does."""
        right = self.right
        if self.base is None and right.origin:
            found = RunDirectory(right.origin.run).record.weights.get(site.module)
            if found and Path(found.file).is_file():
                return found
        bundled = right.origin and RunDirectory(right.origin.run).record.base["name"] == "bundled"  # may have moved
        named = BUNDLED if bundled else Path(right.base or "the base, which the adapter does not name")
        folder = self.base or named
        if not folder.is_dir():
            raise UserError(f"W is read from the base, and {str(folder)!r} is no folder here: give base=")
        shape = (right.tensors[site][1].shape[0], right.sites[site].d_in)
        return find_weight(folder, site.module, shape, right.transposed, right.split)

    @property
    def _sides(self) -> list[Adapter]:
        """Left and right; one of them where both are the same folder."""
        return list({side.folder: side for side in (self.left, self.right)}.values())


@dataclass(frozen=True)
class _Snapshot:
    """An adapter's place in its run.

    Attributes:
        prefix: what `with_distinct_names` put before the arm's name, such as "run/".
    """

    run: RunDirectory
    record: ArmRecord
    step: int
    prefix: str

    def siblings(self, arms: Iterable[ArmRecord]) -> list[Adapter]:
        """The arms of the run, among `arms`, that have a snapshot at the same step."""
        present = [arm["name"] for arm in arms if self.step in self.run.steps(arm["name"])]
        return [self._adapter(arm, self.step) for arm in present]

    def up_to_here(self) -> list[Adapter]:
        """The arm's snapshots up to this step."""
        arm = self.record["name"]
        return [self._adapter(arm, step) for step in self.run.steps(arm) if step <= self.step]

    def _adapter(self, arm: str, step: int) -> Adapter:
        return replace(self.run.adapter(arm, step), name=self.prefix + arm)


def _snapshot_of(adapter: Adapter) -> _Snapshot | None:
    """None outside of a run."""
    origin = adapter.origin
    if origin is None:
        return None
    run = RunDirectory(origin.run)
    prefix = adapter.name.partition("@")[0].removesuffix(origin.arm)
    return _Snapshot(run, run.arms[origin.arm], origin.step, prefix)


def _differ_in_seed(one: ArmRecord, other: ArmRecord) -> bool:
    return _same_but(one, other, seed=0) and one["seed"] != other["seed"]


def _same_but(one: ArmRecord, other: ArmRecord, **setting: int) -> bool:
    """Whether two arms agree in their control and in all settings but one, which `setting` overrides."""
    return settings_of(one, **setting) == settings_of(other, **setting) and one["control"] == other["control"]


def with_distinct_names(left: Adapter, right: Adapter) -> tuple[Adapter, Adapter]:
    """Both adapters; two arms of one name are renamed arm@step in one run, and run/arm in two runs."""
    if left.name != right.name or not (left.origin and right.origin):
        return left, right
    one, other = left.origin, right.origin
    if one.run == other.run:
        return replace(left, name=f"{left.name}@{one.step}"), replace(right, name=f"{right.name}@{other.step}")
    names = (one.run.name, other.run.name) if one.run.name != other.run.name else (str(one.run), str(other.run))
    return replace(left, name=f"{names[0]}/{left.name}"), replace(right, name=f"{names[1]}/{right.name}")
