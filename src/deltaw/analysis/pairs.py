"""The two adapters that an analysis compares, and the pairs that their runs offer besides."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations, pairwise
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from deltaw.analysis.comparable import COMMAND_START, at_shared_sites, check_comparable
from deltaw.analysis.compare import Pairing
from deltaw.analysis.experiment import joined
from deltaw.analysis.losses import losses_of
from deltaw.analysis.snapshot import differ_in_seed, snapshot_of
from deltaw.analysis.study import Study, study_of
from deltaw.config.folder import BUNDLED
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import RunDirectory
from deltaw.run.record import SHADOW, settings_of
from deltaw.run.weights import Weight, find_weight, read_weight

OTHERS_START = f"{COMMAND_START}, and itself by left= or right=: others= has no place for a start"
HUB_CACHE = r"models--([^/]+)/snapshots/[^/]+$"  # an adapter in the hub's cache: the last part is a hash


@dataclass(frozen=True)
class AdapterPair:
    """The two adapters that an analysis compares.

    Attributes:
        base: folder of the base; None for the place that the run or the adapter's config names.
        together: the adapters that may be merged, each at all of its sites: left, right and those given besides.
    """

    left: Adapter
    right: Adapter
    base: Path | None = None
    together: tuple[Adapter, ...] = ()

    @property
    def runs(self) -> list[RunDirectory]:
        """All runs of the experiment of left and right; of both experiments, if they belong to two."""
        runs = dict.fromkeys(run for side in (self.left, self.right) if side.origin for run in side.origin.runs)
        return [RunDirectory(run) for run in runs]

    @property
    def pairing(self) -> Pairing:
        """Left with right."""
        return Pairing(self.left, self.right)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Losses of all arms of the runs that left and right come from: see `losses_of`."""
        return losses_of([self.left, self.right])

    @cached_property
    def study(self) -> Study:
        """Left with right at every seed, beside their shadows."""
        return study_of(self.left, self.right)

    @property
    def to_merge(self) -> list[Adapter]:
        """The adapters that may be merged. Two arms of one experiment alone are none: they learned one task."""
        one, other = self.left.origin, self.right.origin
        of_one_experiment = one and other and one.runs == other.runs and len(self.together) == 2
        return [] if of_one_experiment else list(self.together)

    def controls(self) -> list[Pairing]:
        """Left with each control of the right arm: the same rank, seed, learning rate and variant, at the same step."""
        right = snapshot_of(self.right)
        if not right or right.record["control"] is not None:
            return []
        settings = settings_of(right.record)
        controls = right.siblings(lambda arm: settings_of(arm) == settings and arm["control"] not in (None, SHADOW))
        return [Pairing(self.left, control, cells=False) for control in controls]

    def two_seeds(self) -> Pairing:
        """Two arms that differ only in the seed: left and right, or right and the next seed in its run.

        Raises:
            UserError: there is no such arm.
        """
        left, right = snapshot_of(self.left), snapshot_of(self.right)
        if right is None:
            raise UserError(f"two seeds of one rank are needed, and {self.right.name} is no arm of a run: train both")
        if left and differ_in_seed(left.record, right.record) and left.step == right.step:
            return self.pairing
        others = right.siblings(partial(differ_in_seed, right.record))
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
            snapshot = snapshot_of(side)
            steps = snapshot.up_to_here() if snapshot else []
            pairings += [Pairing(step, steps[-1], cells=False) for step in steps[:-1]]
            pairings += [Pairing(step, later, cells=False) for step, later in pairwise(steps[:-1])]
        if not pairings:
            raise UserError(
                f"two steps of one arm are needed, and {self.left.name} and {self.right.name} have one each"
            )
        return pairings

    def ranks(self) -> list[Adapter]:
        """Right and the arms that differ from it only in the rank, by rank; left and right where right is of no run."""
        right = snapshot_of(self.right)
        if not right:
            return sorted(self._sides, key=lambda side: max(lora.rank for lora in side.sites.values()))
        return list(right.by("rank").values())

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


def adapter_pair(
    left: Adapter, right: Adapter, base: Path | None = None, others: Sequence[Adapter] = ()
) -> AdapterPair:
    """Two adapters with short names, at the sites that both adapt; two runs are one experiment where they can be.

    Args:
        left, right: the two adapters.
        base: folder of the base; None for the place that the run or the adapter's config names.
        others: more adapters to merge with them.

    Raises:
        UserError: they cannot be compared.
    """
    check_comparable(left, right, COMMAND_START)
    left, right = with_distinct_names(*joined(left, right))
    together = [left, right.named_as(left)]
    for other in others:
        if other.folder not in {one.folder for one in together}:
            taken = other.name in {one.name for one in together}
            together.append(named(str(other.folder.absolute()) if taken else other.name, other.named_as(left)))
    for pair in combinations(together, 2):
        check_comparable(*pair, OTHERS_START)
        at_shared_sites(pair)
    left, right = at_shared_sites([left, right])
    return AdapterPair(left, right, base, tuple(together))


def named(name: str, adapter: Adapter) -> Adapter:
    """The adapter under the name that the user gave it."""
    return replace(adapter, name=name)


def with_distinct_names(left: Adapter, right: Adapter) -> tuple[Adapter, Adapter]:
    """Both adapters with names that tell them apart.

    Two arms of one name are renamed arm@step in one run, and run/arm in two runs; a folder goes by its last parts.
    """
    one, other = left.origin, right.origin
    if one is None or other is None:
        short = _below_common_folder(left.folder, right.folder)
        return _named(left, short[0], other=right), _named(right, short[1], other=left)
    if left.name != right.name:
        return left, right
    if one.run == other.run:
        return replace(left, name=f"{left.name}@{one.step}"), replace(right, name=f"{right.name}@{other.step}")
    names = (one.run.name, other.run.name) if one.run.name != other.run.name else (str(one.run), str(other.run))
    return replace(left, name=f"{names[0]}/{left.name}"), replace(right, name=f"{names[1]}/{right.name}")


def _named(adapter: Adapter, name: str, other: Adapter) -> Adapter:
    """A folder's adapter with a short name, unless the other adapter is an arm of this name."""
    if adapter.origin or (other.origin and other.name == name):
        return adapter
    return replace(adapter, name=name)


def _below_common_folder(left: Path, right: Path) -> list[str]:
    """Two folders below the last folder that holds both; of long paths two parts, or as many as tell them apart."""
    paths = [Path(re.sub(HUB_CACHE, _hub_name, os.path.normpath(folder.absolute()))) for folder in (left, right)]
    above = os.path.commonpath([path.parent for path in paths])
    one, other = (path.relative_to(above).parts for path in paths)
    count = 2
    while one[-count:] == other[-count:] and count < max(len(one), len(other)):
        count += 1
    return ["/".join(parts[-count:]) for parts in (one, other)]


def _hub_name(folder: re.Match[str]) -> str:
    return folder[1].replace("--", "/")
