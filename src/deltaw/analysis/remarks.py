"""What changes how a reader should read the tables."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from deltaw.analysis.comparable import base_warning, listed, sites_in_words
from deltaw.run.adapter import Adapter, Site
from deltaw.run.directory import RunDirectory

SAME_START = 0.3  # mean cosine of the rows of two trained A: 0.5 to 1 after one start, about 0 after two
FROZEN = 1e-2  # below this ‖A − A₀‖ / ‖A₀‖, A has hardly been trained
MOST_NAMED = 3  # adapters named in one remark


def remarks_of(
    compared: Iterable[tuple[Adapter, Adapter]],
    adapters: Sequence[Adapter],
    first_sites: Sequence[Mapping[Site, Site]],
    pairs: pd.DataFrame,
    sites: pd.DataFrame,
) -> list[str]:
    """A sentence for each remark, each sentence once, the gravest first.

    Args:
        compared: the pairs.
        adapters: each adapter of the pairs once, at the sites that are compared.
        first_sites: for each adapter, `first_sites_with_A`.
        pairs, sites: the tables, see `deltaw.analysis.columns`.
    """
    compared = list(compared)
    warnings = (base_warning(left, right) for left, right in compared)
    remarks = [
        *_with_itself(compared),
        *_zero(sites),
        *filter(None, warnings),
        *_left_out(adapters),
        *_unfinished(adapters),
        *_runs_left_out(adapters),
        *_of_adapters((arm.name, remark) for arm in adapters for remark in arm.remarks),
        *_equal_A(adapters, first_sites),
        *_shared_starts(pairs),
        *_frozen(sites),
    ]
    return list(dict.fromkeys(remarks))


def _with_itself(compared: Iterable[tuple[Adapter, Adapter]]) -> Iterator[str]:
    for left, right in compared:
        if left.folder.resolve() == right.folder.resolve():
            yield f"{left.name} and {right.name} are one adapter: by construction they share everything"


def _zero(sites: pd.DataFrame) -> Iterator[str]:
    by_site = sites.drop_duplicates(["arm", "step", "layer", "projection"])
    nothing, partly = [], []
    for (arm, _), rows in by_site.groupby(["arm", "step"], sort=False, dropna=False):
        zero = rows[rows.zero]
        if len(zero) == len(rows):
            nothing.append(str(arm))
        elif len(zero):
            names = sites_in_words(Site(*at, "") for at in zip(zero.layer, zero.projection, strict=True))
            partly.append((str(arm), f"ΔW is 0 at {len(zero)} of the {len(rows)} compared sites ({names})"))
    if nothing:
        yield (
            f"{listed(nothing, MOST_NAMED)} learned nothing: ΔW is 0 at every compared site, so that A shows its start "
            "alone"
        )
    yield from _of_adapters(partly)


def _left_out(adapters: Sequence[Adapter]) -> Iterator[str]:
    """The sites that not all adapters have: in their folders, and not among those that are compared."""
    owners: dict[frozenset[Site], str] = {}
    for arm in adapters:
        owners.setdefault(frozenset(arm.tensors.keys() - arm.sites.keys()), arm.name)
    each = [f"{len(sites)} of {owner} ({sites_in_words(sites)})" for sites, owner in owners.items() if sites]
    if each:
        common = f"the {_count(adapters[0].sites)} that {'both' if len(adapters) == 2 else 'all'} adapt"
        yield f"Compared are {common}, {sites_in_words(adapters[0].sites)}; left out are {' and '.join(each)}"


def _unfinished(adapters: Sequence[Adapter]) -> Iterator[str]:
    remarks = []
    for arm in adapters:
        if origin := arm.origin:
            run = RunDirectory(origin.run)
            last, end = run.steps(origin.arm)[-1], run.max_steps
            if end and origin.step == last < end:
                remarks.append((arm.name, f"the run is not finished, and step {last} of {end} is compared"))
    return _of_adapters(remarks)


def _runs_left_out(adapters: Sequence[Adapter]) -> Iterator[str]:
    """The runs of the experiment that have no snapshot at the step that is compared."""
    for step, path in dict.fromkeys(
        (arm.origin.step, run) for arm in adapters if arm.origin for run in arm.origin.runs
    ):
        run = RunDirectory(path)
        if not any(step in run.steps(arm) for arm in run.arms):
            yield f"{path} has no snapshot after step {step}: its arms are not compared"


def _of_adapters(remarks: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Pairs of a name and a remark as sentences; a remark about several adapters is one sentence."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, remark in remarks:
        names[remark].append(name)
    return (f"{listed(list(dict.fromkeys(of_remark)), MOST_NAMED)}: {remark}" for remark, of_remark in names.items())


def _equal_A(adapters: Sequence[Adapter], first_sites: Sequence[Mapping[Site, Site]]) -> Iterator[str]:  # noqa: N802
    """Copies of one A; a fused layer, whose A has several names in one module, has a remark of its own."""
    remarks = []
    for arm, first in zip(adapters, first_sites, strict=True):
        copies = {site for site, one in first.items() if one.module != site.module}
        sites = copies | {first[site] for site in copies}
        if copies:
            remark = (
                f"{_count(sites)} ({sites_in_words(sites)}) have only {len(sites) - len(copies)} different A, as "
                "copies of a fused layer have: on A, and on the input side of ΔW at full rank, equal A count once"
            )
            remarks.append((arm.name, remark))
    return _of_adapters(remarks)


def _shared_starts(pairs: pd.DataFrame) -> Iterator[str]:
    several = pairs[(pairs.rank_left > 1) & (pairs.rank_right > 1)]  # a single row is the direction itself
    means = several.groupby(["left", "right"], as_index=False, sort=False).row_cosine.mean()
    for pair in means[(means.row_cosine > SAME_START) & (means.left != means.right)].itertuples():
        yield (
            f"Shared initialisation: the rows of A of {pair.left} and {pair.right} have a mean cosine of "
            f"{pair.row_cosine:.2f}, as after one start; what they share says little about what they learned"
        )


def _frozen(sites: pd.DataFrame) -> Iterator[str]:
    moved = sites[sites.step.fillna(-1) != 0].groupby("arm", sort=False).moved.max()
    frozen = moved[moved < FROZEN]
    if len(frozen):
        yield (
            f"A of {listed(list(frozen.index), MOST_NAMED)} is frozen or nearly so, ‖A − A₀‖ / ‖A₀‖ at most "
            f"{frozen.max():.1g}: what was learned is on the output side, and A itself is its random start"
        )


def _count(sites: Iterable[Site]) -> str:
    count = len(list(sites))
    return f"{count} sites" if count != 1 else "1 site"
