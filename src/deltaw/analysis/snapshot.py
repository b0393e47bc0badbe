"""An adapter's place in its experiment, and the other snapshots that the experiment has."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from deltaw.analysis.comparable import at_sites
from deltaw.analysis.experiment import Member, adapter_of, arms_of, name_among
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import RunDirectory
from deltaw.run.record import SHADOW, ArmRecord, name_of_shadow, settings_of


@dataclass(frozen=True)
class Snapshot:
    """An adapter's place in its experiment: the run that trained it, and the other runs that are given with it.

    Attributes:
        runs: of the experiment.
        name: of the arm among those of the experiment.
        prefix: what `with_distinct_names` put before this name, such as "run/".
        sites: those of the adapter: other snapshots are compared there and nowhere else.
    """

    runs: list[RunDirectory]
    name: str
    step: int
    prefix: str
    sites: Collection[Site]

    @property
    def run(self) -> RunDirectory:
        """The run that trained the arm."""
        return self._members[self.name].run

    @property
    def record(self) -> ArmRecord:
        """The arm in the record of its run."""
        return self._members[self.name].arm

    def siblings(self, chosen: Callable[[ArmRecord], bool]) -> list[Adapter]:
        """The chosen arms of the experiment that have a snapshot at the same step."""
        return list(self._at_this_step(lambda one: chosen(one.arm)).values())

    def by(self, setting: Literal["rank", "seed"]) -> dict[int, Adapter]:
        """This arm and those that differ from it in one setting alone, at the same step, by this setting in order."""
        found = self._at_this_step(lambda one: same_but(one.arm, self.record, **{setting: 0}))
        arms = {self._members[name].arm[setting]: adapter for name, adapter in found.items()}
        return dict(sorted((arms | {self.record[setting]: found[self.name]}).items()))

    def shadows(self) -> list[Adapter]:
        """The arm's shadows at this step, in order."""
        name = self.record["name"]
        shadows = self._at_this_step(
            lambda one: (
                one.run is self.run
                and one.arm["control"] == SHADOW
                and one.arm["name"] == name_of_shadow(name, one.arm.get("shadow", 0))
            )
        )
        return list(shadows.values())

    def up_to_here(self) -> list[Adapter]:
        """The arm's snapshots up to this step."""
        return [self._adapter(self.name, step) for step in self.run.steps(self.record["name"]) if step <= self.step]

    @cached_property
    def _members(self) -> dict[str, Member]:
        return arms_of(self.runs)

    def _at_this_step(self, chosen: Callable[[Member], bool]) -> dict[str, Adapter]:
        names = [
            name for name, one in self._members.items() if chosen(one) and self.step in one.run.steps(one.arm["name"])
        ]
        return {name: self._adapter(name, self.step) for name in names}

    def _adapter(self, name: str, step: int) -> Adapter:
        return at_sites(replace(adapter_of(self.runs, name, step), name=self.prefix + name), self.sites)


def snapshot_of(adapter: Adapter) -> Snapshot | None:
    """None outside of a run."""
    origin = adapter.origin
    if origin is None:
        return None
    runs = [RunDirectory(run) for run in origin.runs]
    name = name_among(runs, origin.run, origin.arm)
    prefix = adapter.name.removesuffix(f"@{origin.step}").removesuffix(name)
    return Snapshot(runs, name, origin.step, prefix, adapter.sites.keys())


def differ_in_seed(one: ArmRecord, other: ArmRecord) -> bool:
    """Whether two arms differ in the seed alone."""
    return same_but(one, other, seed=0) and one["seed"] != other["seed"]


def same_but(one: ArmRecord, other: ArmRecord, **setting: int) -> bool:
    """Whether two arms agree in their control and in all settings but one, which `setting` overrides."""
    kinds = [(arm["control"], arm.get("shadow", 0)) for arm in (one, other)]
    return settings_of(one, **setting) == settings_of(other, **setting) and kinds[0] == kinds[1]
