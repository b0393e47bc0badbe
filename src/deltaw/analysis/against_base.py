"""Arms against the frozen weight W of one site: the cells of Figure 8 and the rows of Table 7."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from deltaw.analysis.columns import RANDOM
from deltaw.analysis.phi_table import PairKey, PhiGrid, phi_table
from deltaw.analysis.tables import step_of
from deltaw.maths.amplification import FrozenWeight
from deltaw.run.adapter import Adapter, Site

# Figure 8 shows W's directions 451 to 1228 of 12288, as shares of the width.
FIRST, LAST = 450 / 12288, 0.1


def against_base(
    site: Site, W: Float[Tensor, "d_out d_in"], arms: Sequence[Adapter], device: str = "cpu"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare each arm with W at one site. A DoRA has a magnitude besides B A and must not be given.

    Returns:
        φ between W and each arm, with the columns `columns.PHI`: left is "W" and i counts its right-singular
        directions; right is an arm, or "random", a Gaussian A of the largest rank. Then a row per arm, with the columns
        `columns.AMPLIFICATION`.
    """
    width = W.shape[1]
    largest = max(len(_factors(arm, site)[0]) for arm in arms)
    frozen = FrozenWeight(W, max(round(LAST * width), largest), device)
    gaussian = torch.randn(largest, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grids = [_grid(site, frozen, arm.name, step_of(arm), arm.A(site)) for arm in arms]
    grids.append(_grid(site, frozen, RANDOM, None, gaussian))
    rows = pd.DataFrame([_row(site, frozen, arm) for arm in arms]).astype({"step": "Int64"})
    return phi_table(grids), rows


def _grid(site: Site, frozen: FrozenWeight, name: str, step: int | None, A: Float[Tensor, "r d_in"]) -> PhiGrid:
    width = A.shape[1]
    key = PairKey("W", name, None, step, site.layer, site.projection, "A")
    return PhiGrid(key, frozen.similarity(A)[: max(round(LAST * width), 1)], width, first_i=1 + int(FIRST * width))


def _row(site: Site, frozen: FrozenWeight, arm: Adapter) -> dict[str, object]:
    A, B = _factors(arm, site)
    head = {
        "arm": arm.name,
        "step": step_of(arm),
        "layer": site.layer,
        "projection": site.projection,
        "rank": arm.sites[site].rank,
    }
    return head | asdict(frozen.amplification(A, B, arm.sites[site].scale))


def _factors(arm: Adapter, site: Site) -> tuple[Tensor, Tensor]:
    """A and B with scale · B A = ΔW, stacked for ΔW = scale · (B A − B₀A₀)."""
    A, B = arm.A(site), arm.B(site)
    if not arm.alters_base or not arm.start:
        return A, B
    return torch.cat([A, arm.start.A(site)]), torch.cat([B, -arm.start.B(site)], dim=1)
