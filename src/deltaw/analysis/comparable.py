"""Whether two adapters can be compared, and the sites where they are."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from deltaw.errors import UserError
from deltaw.model.names import is_fused
from deltaw.run.adapter import Adapter, Site

# How an adapter's start is given in Python, and to the command.
PYTHON_START = "load_adapter(folder, start=…)"
COMMAND_START = "left_start= or right_start="
MOST_NAMED = 4  # kinds of sites, or ranges of layers, named in one message
ATTENTION = "qkvo"  # named first
MOST_PROJECTIONS = 8  # projections named in one message, by kind of site


def check_comparable(left: Adapter, right: Adapter, give_start: str = PYTHON_START) -> None:
    """Refuse two adapters that cannot be compared.

    Args:
        left, right: their sites may differ, see `at_shared_sites`.
        give_start: how the caller gives an adapter's start.

    Raises:
        UserError: their bases, or the widths at a shared site, differ; or one altered its base and its start is not
            known.
    """
    _check_hashes(left, right)
    for adapter in (left, right):
        _check_start(adapter, give_start)
    _check_widths(left, right.named_as(left))


def at_shared_sites(adapters: Sequence[Adapter]) -> list[Adapter]:
    """The adapters at the sites that all of them adapt, with the names that the first one gives them.

    Raises:
        UserError: there is no such site.
    """
    adapters = [adapter.named_as(adapters[0]) for adapter in adapters]
    shared = set.intersection(*(set(adapter.sites) for adapter in adapters))
    if not shared:
        each = "; ".join(f"{adapter.name} adapts {sites_in_words(adapter.sites)}" for adapter in adapters[:MOST_NAMED])
        fused = any(is_fused(site.projection) for adapter in adapters for site in adapter.sites)
        way_on = (
            "Give base=, a folder with the base's config.json, which tells the rows of a fused layer"
            if fused
            else "Compare adapters that share a module of one base"
        )
        raise UserError(f"the adapters have no site in common: {each}. {way_on}")
    return [at_sites(adapter, shared) for adapter in adapters]


def at_sites(adapter: Adapter, sites: Collection[Site]) -> Adapter:
    """The adapter at some of its sites; those of `sites` that it does not adapt are ignored."""
    return replace(adapter, sites={site: lora for site, lora in adapter.sites.items() if site in sites})


def base_warning(left: Adapter, right: Adapter) -> str | None:
    """A warning where the adapters name two bases and no run has recorded that the bases are one; else None."""
    if left.base == right.base or (left.origin and right.origin):  # recorded hashes agree: `check_comparable`
        return None
    names = [f"the base {side.base!r}" if side.base else "no base" for side in (left, right)]
    return (
        f"{left.name} names {names[0]}, {right.name} names {names[1]}: φ is meaningful only if both are the same base"
    )


def sites_in_words(sites: Iterable[Site]) -> str:
    """Sites in words, as "q and v of layers 1 to 6"; of many kinds the first ones, and how many more there are."""
    layers: defaultdict[str, list[int]] = defaultdict(list)
    for site in sorted(sites):
        layers[site.projection].append(site.layer)
    kinds: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for projection in sorted(layers, key=lambda name: (name not in ATTENTION, ATTENTION.find(name), name)):
        kinds[tuple(layers[projection])].append(projection)
    named = [f"{listed(names, MOST_PROJECTIONS)} {_of_layers(numbers)}" for numbers, names in kinds.items()]
    rest = sum(len(kinds[numbers]) for numbers in list(kinds)[MOST_NAMED:])
    return ", ".join(named[:MOST_NAMED]) + (f" and {rest} other projections" if rest else "") or "nothing"


def listed(names: Sequence[str], most: int) -> str:
    """Names in a sentence, as "q, k and v"; of more than `most` the first ones, and how many more there are."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _of_layers(numbers: Sequence[int]) -> str:
    """Ascending layers in words, as "of layers 1 to 3 and 6"."""
    if tuple(numbers) == (0,):
        return "outside of the layers"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    if len(runs) > MOST_NAMED:
        return f"of {len(numbers)} layers from {numbers[0]} to {numbers[-1]}"
    each = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"of layer{'s' if len(numbers) > 1 else ''} {listed(each, MOST_NAMED)}"


def _check_hashes(left: Adapter, right: Adapter) -> None:
    hashes = [adapter.origin.base_hash[:12] if adapter.origin else None for adapter in (left, right)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise UserError(
            f"{left.name} was trained on the base {hashes[0]}…, {right.name} on {hashes[1]}…: compare arms of one base"
        )


def _check_start(adapter: Adapter, give_start: str) -> None:
    if adapter.alters_base and adapter.start is None:
        raise UserError(
            f"{adapter.name} started with B₀ ≠ 0 and an altered base: its ΔW is B A − B₀ A₀; give the adapter saved "
            f"before the first step by {give_start}"
        )


def _check_widths(left: Adapter, right: Adapter) -> None:
    for site, lora in left.sites.items():
        if site in right.sites:
            widths = [(found.d_in, found.d_out) for found in (lora, right.sites[site])]
            if widths[0] != widths[1]:
                raise UserError(
                    f"{site} maps {widths[0]} (in, out) in {left.name} and {widths[1]} in {right.name}: "
                    "compare adapters of one base"
                )
