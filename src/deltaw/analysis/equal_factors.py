"""Sites of one adapter with equal factors: whose A is equal, and whose ΔW is 0.

A fused layer has one A for q, k and v, its export to three modules has three copies of it, and some methods tie one A
over layers. What two adapters share on such an A is one finding, however many names it has.
"""

import pandas as pd
import torch

from deltaw.analysis.columns import TWO
from deltaw.run.adapter import Adapter, Site
from deltaw.run.tensors import StoredTensor

SPANS = ("corner", "k_star")  # measures of whole spans


def first_sites_with_A(arm: Adapter) -> dict[Site, Site]:  # noqa: N802
    """For each site of an adapter the first one whose A is equal to its own, often itself.

    Sites with the same first row are compared in full; of all others only this row is read.
    """
    first: dict[Site, Site] = {}
    alike: dict[object, list[Site]] = {}
    for site in arm.sites:
        stored = arm.tensors[site][0]
        row = stored.part(0, 1).read().view(torch.uint8).numpy().tobytes()
        candidates = alike.setdefault((stored.shape, stored.dtype, row), [])
        first[site] = next((other for other in candidates if _equal(arm.tensors[other][0], stored)), site)
        if first[site] == site:
            candidates.append(site)
    return first


def update_is_zero(arm: Adapter, site: Site) -> bool:
    """Whether ΔW is 0 at a site, as before the first step: since B, A or the scale is 0, or nothing has moved.

    Mostly read from one row.
    """
    A, B = arm.tensors[site]
    if arm.sites[site].scale == 0:
        return True
    if arm.alters_base and arm.start:
        start = arm.start.tensors[site]
        return all(_equal(now, then) for now, then in zip((A, B), start, strict=True))
    rows = arm.sites[site].rows or (range(B.shape[0]),)
    return not any(_is_nonzero(B.part(part.start, len(part))) for part in rows) or not _is_nonzero(A)


def distinct(pairs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Rows of `Comparison.pairs` without those that say again what an earlier row says: sites with the same two A.

    On A and update they agree in everything, and on input in their whole spans, where ΔW has as many directions as A.

    Args:
        measure: what the rows are wanted for: "first", "row", "corner" or "k_star".
    """
    by_A = pairs.basis.isin(["A", "update"])
    if measure in SPANS:
        by_A |= (pairs.basis == "input") & pairs.full_rank
    again = pairs.duplicated([*TWO, "basis", "A_left", "A_right"])
    return pairs[~(by_A & again)]


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.path, one.offset, one.shape) == (other.path, other.offset, other.shape):
        return True
    if one.shape != other.shape or not torch.equal(one.part(0, 1).read(), other.part(0, 1).read()):
        return False
    return torch.equal(one.read(), other.read())


def _is_nonzero(stored: StoredTensor) -> bool:
    return bool(stored.part(0, 1).read().any()) or bool(stored.read().any())
