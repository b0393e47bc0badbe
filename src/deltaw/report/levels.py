"""What a pair shares in each basis beside chance, what it shares with controls, and the spectra of each adapter."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deltaw.analysis.compare import RARE, Pairing
from deltaw.analysis.equal_factors import distinct
from deltaw.exhibit.tables import Tables
from deltaw.maths.spectrum import CLOSE
from deltaw.run.adapter import Adapter


@dataclass(frozen=True)
class Level:
    """One measure of φ over the sites, and the number of sites where it is beyond random subspaces."""

    phi: float  # on average
    lowest: float
    highest: float
    random: float  # φ of random subspaces, on average
    beyond_random: int  # sites whose φ random subspaces reach with a probability below 1 % divided by the sites


@dataclass(frozen=True)
class Levels:
    """What a pair shares in one basis, on average over the sites where both have directions; equal A count once.

    Attributes:
        first, row, corner: φ(1, 1), φ(1, r) and φ of the whole spans.
        k_star: directions shared beyond random subspaces, on average; None where it is not known (`reason`).
        cos2: mean cos²θ of these directions, over the sites with one; None where there is none.
        sharing: sites with at least one such direction.
        reason: why a number is missing at some site; None where none is missing.
    """

    basis: str
    sites: int
    first: Level
    row: Level
    corner: Level
    k_star: float | None
    cos2: float | None
    sharing: int
    reason: str | None


@dataclass(frozen=True)
class Control:
    """Left against one control of the right arm.

    Attributes:
        share: of the task's gain in validation loss; None where it is not known.
        rose: whether the validation loss of the control rose above the base's, so that it supports no verdict.
    """

    name: str
    control: str
    share: float | None
    rose: bool
    levels: list[Levels]


@dataclass(frozen=True)
class Spectra:
    """The ranks of one adapter's matrices in one basis, on average over the sites."""

    arm: str
    basis: str
    rank: int  # the largest over its sites
    smallest_rank: int
    stable_rank: float
    entropy_rank: float
    energy_rank: float
    arbitrary: int  # sites where the first two singular values lie within 5 % of each other
    sites: int


def levels_of(pairs: pd.DataFrame) -> list[Levels]:
    """The levels of one pair in each basis where some site has directions, from its rows of `Comparison.pairs`."""
    defined = pairs.dropna(subset="phi_first")
    return [_levels(basis, sites) for basis, sites in defined.groupby("basis", sort=False)]


def _levels(basis: object, sites: pd.DataFrame) -> Levels:
    spans = distinct(sites, "k_star")
    k_stars = spans.k_star.dropna()
    return Levels(
        basis=str(basis),
        sites=len(sites),
        first=_level(distinct(sites, "first"), "first"),
        row=_level(distinct(sites, "row"), "row"),
        corner=_level(spans, "corner"),
        k_star=float(k_stars.mean()) if len(k_stars) else None,
        cos2=_or_none(spans.k_star_cos2.mean()),
        sharing=int((k_stars > 0).sum()),
        reason=next(iter(sites.reason.dropna()), None),
    )


def _level(sites: pd.DataFrame, name: str) -> Level:
    phi = sites[f"phi_{name}"]
    return Level(
        phi=float(phi.mean()),
        lowest=float(phi.min()),
        highest=float(phi.max()),
        random=float(sites[f"null_{name}"].mean()),
        beyond_random=int((sites[f"p_{name}"] < RARE / len(sites)).sum()),
    )


def controls_of(tables: Tables, pairings: Sequence[Pairing], projections: Collection[str]) -> list[Control]:
    """What each pair with a control on its right shares, where the losses of the control are recorded."""
    recorded = tables.losses.set_index("arm")
    return [
        Control(
            name=pairing.right.name,
            control=str(recorded.control[pairing.right.name]),
            share=_or_none(recorded.share[pairing.right.name]),
            rose=not recorded.end[pairing.right.name] <= recorded.start[pairing.right.name],
            levels=levels_of(tables.pairs(pairing, projections)),
        )
        for pairing in pairings
        if pairing.right.name in recorded.index
    ]


def _or_none(share: float) -> float | None:
    return None if np.isnan(share) else float(share)


def spectra_of(tables: Tables, sides: Sequence[Adapter], projections: Collection[str]) -> list[Spectra]:
    """The spectra of each adapter in each basis where it has directions; equal A count once."""
    found = []
    for side in sides:
        defined = tables.sites(side, projections)
        again = defined.duplicated(["basis", "same_A"]) & defined.basis.isin(["A", "update"])
        defined = defined[~again & (defined.numerical_rank > 0)]
        for basis, rows in defined.groupby("basis", sort=False):
            found.append(
                Spectra(
                    arm=side.name,
                    basis=str(basis),
                    rank=int(rows["rank"].max()),
                    smallest_rank=int(rows["rank"].min()),
                    stable_rank=float(rows.stable_rank.mean()),
                    entropy_rank=float(rows.entropy_rank.mean()),
                    energy_rank=float(rows.energy_rank.mean()),
                    arbitrary=int(sum(gaps[0] < CLOSE for gaps in rows.gaps)),
                    sites=len(rows),
                )
            )
    return found
