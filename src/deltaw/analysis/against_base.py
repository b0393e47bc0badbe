"""Tables of arms against the frozen weight of one site: Figure 8's cells and Table 7's rows."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deltaw.analysis.tables import Cells, step_of
from deltaw.maths.amplification import FrozenWeight
from deltaw.run.adapter import Adapter, Site

# The directions of W that Figure 8 shows: 451 to 1228 of 12288, up to the strongest tenth.
FIRST, LAST = 450 / 12288, 0.1
RANDOM = "random"


def against_base(
    site: Site, W: Float[Tensor, "d_out d_in"], arms: Sequence[Adapter], device: str = "cpu"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each arm at one site against W. Of a DoRA this would be the direction alone: not to be given.

    Returns:
        Cells as those of `Comparison.phi`, left being "W" and i counting its right-singular directions, right an arm
        or "random", a Gaussian A of the largest rank; and a row per arm: arm, step, layer, projection, rank, and
        what `Amplification` has.
    """
    width = W.shape[1]
    largest = max(arm.sites[site].rank for arm in arms)
    frozen = FrozenWeight(W, max(round(LAST * width), largest), device)
    factors = [(arm, *_factors(arm, site)) for arm in arms]
    gaussian = torch.randn(largest, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = Cells()
    for name, step, A in [*((arm.name, step_of(arm), arm.A(site)) for arm in arms), (RANDOM, None, gaussian)]:
        head = ("W", name, None, step, site.layer, site.projection, "A")
        cells.add(head, frozen.similarity(A)[: max(round(LAST * width), 1)], width, first=1 + int(FIRST * width))
    rows = [
        {
            "arm": arm.name,
            "step": step_of(arm),
            "layer": site.layer,
            "projection": site.projection,
            "rank": arm.sites[site].rank,
        }
        | asdict(frozen.amplification(A, B, arm.sites[site].scale))
        for arm, A, B in factors
    ]
    return cells.table(), pd.DataFrame(rows).astype({"step": "Int64"})


def _factors(arm: Adapter, site: Site) -> tuple[Tensor, Tensor]:
    """Those whose product is ΔW: of an arm that altered its base, of B A − B₀ A₀."""
    A, B = arm.A(site), arm.B(site)
    if not arm.alters_base or not arm.start:
        return A, B
    return torch.cat([A, arm.start.A(site)]), torch.cat([B, -arm.start.B(site)], dim=1)
