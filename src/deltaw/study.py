"""Two adapters → tables: φ in every cell of every site, and what is known of each site by itself."""

import logging
from dataclasses import dataclass, replace

import pandas as pd
import torch
from tqdm import tqdm

from deltaw.adapter import Adapter, Site
from deltaw.chance import random_mean, random_sd
from deltaw.cli import UserError
from deltaw.subspace import numerical_rank, similarity

BASIS = "A"  # whose subspaces are compared: the paper's choice


@dataclass(frozen=True)
class Source:
    """Where a compared adapter comes from; the last three are None for one that was not found in a run."""

    name: str
    folder: str
    base: str
    run: str | None
    step: int | None
    base_hash: str | None


@dataclass(frozen=True)
class Pair:
    """The two adapters that a table compares."""

    left: Source
    right: Source
    warning: str | None  # the adapters name two bases, and no run has recorded that they are one


log = logging.getLogger(__name__)


def compare(left: Adapter, right: Adapter) -> pd.DataFrame:
    """φ between two adapters of one base, at every site and for every pair of sizes.

    Logs a warning where the adapters name two bases and no run tells whether they are one.

    Returns:
        A row per cell, sites in the order of layer and projection: left, right (names), step_left, step_right
        (<NA> outside of a run), layer (from 1), projection, basis, i (directions of `left`, from 1), j (of
        `right`), phi (in [0, 1]; NaN beyond a numerical rank), null_mean, null_sd (φ of random subspaces).

    Raises:
        UserError: the sites or their widths differ, or the runs recorded two different bases.
    """
    _check_one_base(left, right)
    _check_sites(left, right)
    tables = [_phi(site, left, right) for site in tqdm(left.factors, desc="φ", unit="site", delay=2)]
    return pd.concat(tables, ignore_index=True).astype({"step_left": "Int64", "step_right": "Int64"})


def told_apart(left: Adapter, right: Adapter) -> tuple[Adapter, Adapter]:
    """The two, under the names of their runs as well where they are called alike."""
    if left.name != right.name or not (left.origin and right.origin):
        return left, right
    return (
        replace(left, name=f"{left.origin.run.name}/{left.name}"),
        replace(right, name=f"{right.origin.run.name}/{right.name}"),
    )


def describe_sites(left: Adapter, right: Adapter) -> pd.DataFrame:
    """What each adapter is at each site.

    Returns:
        A row per side and site: side ("left" or "right"), arm (the adapter's name), step, layer, projection,
        module, basis, d_in, d_out, rank, numerical_rank, scale (of B A in ΔW), singular_values (of A, largest
        first).
    """
    rows = [
        _site(side, adapter, site) for side, adapter in (("left", left), ("right", right)) for site in adapter.factors
    ]
    return pd.DataFrame(rows).astype({"step": "Int64"})


def describe_pair(left: Adapter, right: Adapter) -> Pair:
    """Who is compared, and what is to be said against it."""
    return Pair(_source(left), _source(right), _base_warning(left, right))


def _source(adapter: Adapter) -> Source:
    origin = adapter.origin
    return Source(
        name=adapter.name,
        folder=str(adapter.folder),
        base=adapter.base,
        run=str(origin.run) if origin else None,
        step=origin.step if origin else None,
        base_hash=origin.base_hash if origin else None,
    )


def _base_warning(left: Adapter, right: Adapter) -> str | None:
    if left.base == right.base or (left.origin and right.origin):  # of two origins the hashes agree by now
        return None
    return (
        f"{left.name} names the base {left.base!r}, {right.name} names {right.base!r}: "
        "φ means something only if they are one"
    )


def _phi(site: Site, left: Adapter, right: Adapter) -> pd.DataFrame:
    A_left, A_right = left.factors[site].A, right.factors[site].A
    width = A_left.shape[1]
    i, j = torch.meshgrid(torch.arange(len(A_left)) + 1, torch.arange(len(A_right)) + 1, indexing="ij")
    return pd.DataFrame(
        {
            "left": left.name,
            "right": right.name,
            "step_left": _step(left),
            "step_right": _step(right),
            "layer": site.layer,
            "projection": site.projection,
            "basis": BASIS,
            "i": i.flatten(),
            "j": j.flatten(),
            "phi": similarity(A_left, A_right).flatten(),
            "null_mean": random_mean(i, j, width).flatten(),
            "null_sd": random_sd(i, j, width).flatten(),
        }
    )


def _site(side: str, adapter: Adapter, site: Site) -> dict[str, object]:
    factors = adapter.factors[site]
    singular_values = torch.linalg.svdvals(factors.A.double())
    return {
        "side": side,
        "arm": adapter.name,
        "step": _step(adapter),
        "layer": site.layer,
        "projection": site.projection,
        "module": site.module,
        "basis": BASIS,
        "d_in": factors.A.shape[1],
        "d_out": factors.B.shape[0],
        "rank": len(factors.A),
        "numerical_rank": numerical_rank(singular_values),
        "scale": factors.scale,
        "singular_values": singular_values.tolist(),
    }


def _step(adapter: Adapter) -> int | None:
    return adapter.origin.step if adapter.origin else None


def _check_one_base(left: Adapter, right: Adapter) -> None:
    hashes = [adapter.origin.base_hash[:12] if adapter.origin else None for adapter in (left, right)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise UserError(
            f"{left.name} was trained on the base {hashes[0]}…, {right.name} on {hashes[1]}…: compare arms of one base"
        )
    if warning := _base_warning(left, right):
        log.warning(warning)


def _check_sites(left: Adapter, right: Adapter) -> None:
    for adapter, other in ((left, right), (right, left)):
        if extra := sorted(adapter.factors.keys() - other.factors.keys()):
            names = ", ".join(map(str, extra[:4])) + (f" and {len(extra) - 4} more" if len(extra) > 4 else "")
            raise UserError(f"{adapter.name} adapts {names}, {other.name} does not: compare adapters of the same sites")
    for site, factors in left.factors.items():
        widths = [(f.A.shape[1], len(f.B)) for f in (factors, right.factors[site])]
        if widths[0] != widths[1]:
            raise UserError(
                f"{site} maps {widths[0]} (in, out) in {left.name} and {widths[1]} in {right.name}: "
                "compare adapters of one base"
            )
