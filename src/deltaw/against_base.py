"""Tables of arms against the frozen weight of one site: Figure 8's cells and Table 7's rows."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deltaw.adapter import Adapter, Site
from deltaw.amplification import FrozenWeight
from deltaw.cli import UserError
from deltaw.tables import Cells, step_of

# The directions of W that Figure 8 shows: 451 to 1228 of 12288, up to the strongest tenth.
FIRST, LAST = 450 / 12288, 0.1
RANDOM = "random"


def against_base(
    site: Site, W: Float[Tensor, "d_out d_in"], arms: Sequence[Adapter], device: str = "cpu"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each arm at one site against W.

    Returns:
        Cells as those of `Comparison.phi`, left being "W" and i counting its right-singular directions, right an arm
        or "random", a Gaussian A of the largest rank; and a row per arm: arm, step, layer, projection, rank, and
        what `Amplification` has.

    Raises:
        UserError: ΔW is not B A alone.
    """
    if magnitude := [arm.name for arm in arms if arm.direction_only]:
        raise UserError(f"{magnitude} have a magnitude besides B A (DoRA): they cannot be measured against W")
    width = W.shape[1]
    largest = max(arm.sites[site].rank for arm in arms)
    frozen = FrozenWeight(W, max(round(LAST * width), largest), device)
    factors = [(arm, arm.A(site), arm.B(site)) for arm in arms]
    gaussian = torch.randn(largest, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = Cells()
    for name, step, A in [*((arm.name, step_of(arm), A) for arm, A, _ in factors), (RANDOM, None, gaussian)]:
        head = ("W", name, None, step, site.layer, site.projection, "A")
        cells.add(head, frozen.similarity(A)[: max(round(LAST * width), 1)], width, first=1 + int(FIRST * width))
    rows = [
        {"arm": arm.name, "step": step_of(arm), "layer": site.layer, "projection": site.projection, "rank": len(A)}
        | asdict(frozen.amplification(A, B, arm.sites[site].scale))
        for arm, A, B in factors
    ]
    return cells.table(), pd.DataFrame(rows).astype({"step": "Int64"})
