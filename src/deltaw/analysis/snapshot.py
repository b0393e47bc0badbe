"""An adapter's place in its run, and the other snapshots that the run has."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from deltaw.analysis.comparable import at_sites
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import RunDirectory
from deltaw.run.record import SHADOW, ArmRecord, name_of_shadow, settings_of


@dataclass(frozen=True)
class Snapshot:
    """An adapter's place in its run.

    Attributes:
        prefix: what `with_distinct_names` put before the arm's name, such as "run/".
        sites: those of the adapter: other snapshots are compared there and nowhere else.
    """

    run: RunDirectory
    record: ArmRecord
    step: int
    prefix: str
    sites: Collection[Site]

    def siblings(self, arms: Iterable[ArmRecord]) -> list[Adapter]:
        """The arms of the run, among `arms`, that have a snapshot at the same step."""
        present = [arm["name"] for arm in arms if self.step in self.run.steps(arm["name"])]
        return [self._adapter(arm, self.step) for arm in present]

    def other_seeds(self) -> dict[int, ArmRecord]:
        """This arm, and the arms of the run that differ from it in the seed alone, by seed."""
        arms = {arm["seed"]: arm for arm in self.run.record.arms if same_but(arm, self.record, seed=0)}
        return arms | {self.record["seed"]: self.record}

    def shadows(self) -> list[Adapter]:
        """The arm's shadows at this step, in order."""
        arms, name = self.run.record.arms, self.record["name"]
        shadows = [arm for arm in arms if arm["control"] == SHADOW]
        return self.siblings(arm for arm in shadows if arm["name"] == name_of_shadow(name, arm.get("shadow", 0)))

    def up_to_here(self) -> list[Adapter]:
        """The arm's snapshots up to this step."""
        arm = self.record["name"]
        return [self._adapter(arm, step) for step in self.run.steps(arm) if step <= self.step]

    def _adapter(self, arm: str, step: int) -> Adapter:
        return at_sites(replace(self.run.adapter(arm, step), name=self.prefix + arm), self.sites)


def snapshot_of(adapter: Adapter) -> Snapshot | None:
    """None outside of a run."""
    origin = adapter.origin
    if origin is None:
        return None
    run = RunDirectory(origin.run)
    prefix = adapter.name.removesuffix(f"@{origin.step}").removesuffix(origin.arm)
    return Snapshot(run, run.arms[origin.arm], origin.step, prefix, adapter.sites.keys())


def differ_in_seed(one: ArmRecord, other: ArmRecord) -> bool:
    """Whether two arms differ in the seed alone."""
    return same_but(one, other, seed=0) and one["seed"] != other["seed"]


def same_but(one: ArmRecord, other: ArmRecord, **setting: int) -> bool:
    """Whether two arms agree in their control and in all settings but one, which `setting` overrides."""
    kinds = [(arm["control"], arm.get("shadow", 0)) for arm in (one, other)]
    return settings_of(one, **setting) == settings_of(other, **setting) and kinds[0] == kinds[1]
