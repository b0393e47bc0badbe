"""Whether two adapters can be compared."""

from deltaw.errors import UserError
from deltaw.run.adapter import Adapter


def check_comparable(left: Adapter, right: Adapter) -> None:
    """Refuse two adapters that cannot be compared.

    Raises:
        UserError: their bases, sites or widths differ, or one altered its base and its start is not known.
    """
    _check_hashes(left, right)
    for adapter, other in ((left, right), (right, left)):
        _check_start(adapter)
        _check_sites(adapter, other)
    _check_widths(left, right)


def base_warning(left: Adapter, right: Adapter) -> str | None:
    """A warning where the adapters name two bases and no run has recorded that the bases are one; else None."""
    if left.base == right.base or (left.origin and right.origin):  # recorded hashes agree: `check_comparable`
        return None
    return (
        f"{left.name} names the base {left.base!r}, {right.name} names {right.base!r}: "
        "φ is meaningful only if both are the same base"
    )


def _check_hashes(left: Adapter, right: Adapter) -> None:
    hashes = [adapter.origin.base_hash[:12] if adapter.origin else None for adapter in (left, right)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise UserError(
            f"{left.name} was trained on the base {hashes[0]}…, {right.name} on {hashes[1]}…: compare arms of one base"
        )


def _check_start(adapter: Adapter) -> None:
    if adapter.alters_base and adapter.start is None:
        raise UserError(
            f"{adapter.name} started with B₀ ≠ 0 and an altered base: its ΔW is B A − B₀ A₀; give the adapter "
            "saved before the first step by left_start= or right_start="
        )


def _check_sites(adapter: Adapter, other: Adapter) -> None:
    if extra := sorted(adapter.sites.keys() - other.sites.keys()):
        names = ", ".join(map(str, extra[:4])) + (f" and {len(extra) - 4} more" if len(extra) > 4 else "")
        raise UserError(f"{adapter.name} adapts {names}, {other.name} does not: compare adapters of the same sites")


def _check_widths(left: Adapter, right: Adapter) -> None:
    for site, lora in left.sites.items():
        widths = [(found.d_in, found.d_out) for found in (lora, right.sites[site])]
        if widths[0] != widths[1]:
            raise UserError(
                f"{site} maps {widths[0]} (in, out) in {left.name} and {widths[1]} in {right.name}: "
                "compare adapters of one base"
            )
