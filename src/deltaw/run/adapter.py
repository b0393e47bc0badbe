"""One adapter folder in PEFT's format, read without PEFT: its config, its sites, and the factors of each site."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deltaw.errors import UserError
from deltaw.model.fused import Fused, fused_layout
from deltaw.model.names import is_fused, layer_of, projection_of
from deltaw.run.peft_files import CONFIG, WEIGHTS, read_base_config, read_config, read_pairs, read_split
from deltaw.run.tensors import Buffers, StoredTensor

# Values of `init_lora_weights` in lower case. First: B₀ = 0. Second: B₀ ≠ 0, yet B₀A₀ = 0. All others: B₀A₀ ≠ 0.
_ZERO_B = ("true", "gaussian", "eva")
_ZERO_PRODUCT = ("orthogonal", "mica")
_CHOSEN_A = ("eva", "pissa", "olora", "corda", "loftq", "lora_ga")  # the base or the data determine A₀


@dataclass(frozen=True, order=True)
class Site:
    """A place of LoRA: a projection of a layer. Two bases may name its module differently."""

    layer: int  # from 1, as in the paper; 0 for a module outside the layers
    projection: str  # "q", "k", "v", "o", or the last part of the module's name
    module: str = field(compare=False)  # the name in the base

    def __str__(self) -> str:
        return f"{self.projection} of layer {self.layer}"


@dataclass(frozen=True)
class Lora:
    """Shapes and scale of one site, known from the header of the weights' file without reading a tensor."""

    rank: int
    d_in: int
    d_out: int
    scale: float  # in ΔW = scale · B A
    rows: tuple[range, ...] | None = None  # this projection's rows of B in a fused layer; None for a layer of its own

    def rows_of(self, layer: Float[Tensor, "rows n"]) -> Float[Tensor, "d_out n"]:
        """The rows of this projection in a matrix of its layer: in B, or in the base's weight as (d_out, d_in)."""
        return layer if self.rows is None else torch.cat([layer[rows.start : rows.stop] for rows in self.rows])


@dataclass(frozen=True)
class Origin:
    """The run that an adapter is a snapshot of."""

    run: Path
    arm: str
    step: int
    base_hash: str


@dataclass(frozen=True)
class Adapter:
    """One arm after one step, or any PEFT adapter. Factors are read on demand."""

    name: str  # the arm's, or the folder as the user gives it
    folder: Path
    base: str  # `base_model_name_or_path`; empty if the config has none
    sites: dict[Site, Lora]  # in the order of the sites
    origin: Origin | None = None  # None for a folder that the user names directly
    start: "Adapter | None" = None  # the same adapter before the first step, if known: A₀ and B₀
    remarks: tuple[str, ...] = ()  # sentences for the reader of an analysis
    direction_only: bool = False  # DoRA: ΔW has a magnitude as well, which B A does not hold
    alters_base: bool = False  # it started from B₀A₀ ≠ 0, which most such starts subtract from the base
    transposed: bool = False  # the base stores its weights as (d_in, d_out)
    split: dict[str, Fused] = field(default_factory=dict)  # by module: fused layers of the base that were split
    tensors: dict[Site, tuple[StoredTensor, StoredTensor]] = field(
        default_factory=dict, repr=False
    )  # A and B of layers

    def A(self, site: Site, buffers: Buffers | None = None) -> Float[Tensor, "rank d_in"]:  # noqa: N802
        """Read A of `site` from the file, in the dtype of the file.

        Args:
            site: one of `sites`.
            buffers: memory to reuse; the tensor is valid until the next A of this adapter is read into it.

        Raises:
            UserError: the file has changed since it was opened, or, without `buffers`, A holds a value that is not
                finite.
        """
        return self.tensors[site][0].read(buffers, kind=(self.folder, "A"))

    def B(self, site: Site, buffers: Buffers | None = None) -> Float[Tensor, "d_out rank"]:  # noqa: N802
        """Read B of `site` from the file; for a fused layer, the rows of this projection. Otherwise as `A`."""
        return self.sites[site].rows_of(self.tensors[site][1].read(buffers, kind=(self.folder, "B")))


def load_adapter(folder: str | Path, start: str | Path | None = None) -> Adapter:
    """Open a folder with `adapter_config.json` and `adapter_model.safetensors`, and read the header of the weights.

    The sites are the linear layers with LoRA; a remark names everything else in the file. A layer that fuses q, k and
    v becomes one site for each of them, if its shapes or the config of a local base tell which rows are whose.

    Args:
        folder: written by PEFT's save_pretrained.
        start: a folder with the same adapter before its first step.

    Raises:
        UserError: a file is missing or broken, ΔW is not scale · B A, a factor is missing or does not fit its
            partner, or `start` has other sites, ranks or widths.
    """
    path = Path(folder)
    config = read_config(path / CONFIG)
    pairs, others = read_pairs(path / WEIGHTS, config)
    base = str(config.get("base_model_name_or_path") or "")
    sites = _loras(pairs, config, read_base_config(base))
    started = None if start is None else load_adapter(start)
    if started:
        _check_start(path, sites, started)
    alters_base = _starts_off_zero(config, started)
    return Adapter(
        name=str(folder),
        folder=path,
        base=base,
        sites=sites,
        start=started,
        remarks=tuple(_remarks(config, sites, others, alters_base)),
        direction_only=bool(config.get("use_dora")),
        alters_base=alters_base,
        transposed=bool(config.get("fan_in_fan_out")),
        split=read_split(path / WEIGHTS),
        tensors={site: pairs[site.module] for site in sites},
    )


def _loras(
    pairs: dict[str, tuple[StoredTensor, StoredTensor]], config: dict[str, Any], base: dict[str, Any]
) -> dict[Site, Lora]:
    """Shapes and scale by site, in the order of the sites."""
    found = []
    for module, (A, B) in pairs.items():
        (rank, d_in), (d_out, _) = A.shape, B.shape
        layer, scale = layer_of(module) or 0, _scale(config, module, rank)
        layout = fused_layout(module, d_in, d_out, bool(config.get("fan_in_fan_out")), base)
        for projection, rows in (layout.rows if layout else {}).items():
            found.append((Site(layer, projection, module), Lora(rank, d_in, sum(map(len, rows)), scale, rows)))
        if not layout:
            found.append((Site(layer, projection_of(module), module), Lora(rank, d_in, d_out, scale)))
    counts = Counter(site for site, _ in found)
    ambiguous = {site.projection for site, count in counts.items() if count > 1}
    unique = [(_by_path(site, lora) if site.projection in ambiguous else site, lora) for site, lora in found]
    return dict(sorted(unique, key=itemgetter(0)))


def _by_path(site: Site, lora: Lora) -> Site:
    """The site with its path as the projection: in some layer, another module (decoder, expert) has the same one."""
    path_without_layer = re.sub(r"\.\d+(?=\.)", "", site.module, count=1)
    return replace(site, projection=path_without_layer + (f".{site.projection}" if lora.rows else ""))


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """The factor of B A in ΔW. The rank is that of A, so it follows `rank_pattern`."""
    patterns = config.get("alpha_pattern") or {}
    fitting = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module))  # PEFT's rule
    alpha = next(fitting, config["lora_alpha"])
    return alpha / (sqrt(rank) if config.get("use_rslora") else rank)


def _check_start(path: Path, sites: dict[Site, Lora], start: Adapter) -> None:
    for site in sorted(sites.keys() | start.sites.keys()):
        here, there = sites.get(site), start.sites.get(site)
        if here != there:
            raise UserError(
                f"{start.folder} is not the start of {path}: {site} is {there or 'not adapted'} there and "
                f"{here or 'not adapted'} here; give the snapshot of the same adapter before its first step"
            )


def _starts_off_zero(config: dict[str, Any], start: Adapter | None) -> bool:
    """Whether B₀A₀ ≠ 0. A known start overrules the config: PEFT's recipe for PiSSA saves "true" there."""
    init = _init(config)
    if init in _ZERO_PRODUCT:
        return False
    return bool(start.B(next(iter(start.sites))).any()) if start else init not in _ZERO_B


def _init(config: dict[str, Any]) -> str:
    return str(config.get("init_lora_weights", True)).lower()


def _remarks(
    config: dict[str, Any], sites: dict[Site, Lora], others: list[str], starts_off_zero: bool
) -> Iterator[str]:
    init = _init(config)
    if config.get("use_dora"):
        yield "ΔW of a DoRA has a magnitude besides: φ compares its direction, scale · B A, alone"
    if starts_off_zero:
        yield (
            f"It started from B₀A₀ ≠ 0 (init_lora_weights is {init}), which most such starts subtract from the base: "
            "it learned B A − B₀A₀"
        )
    if init.startswith(_CHOSEN_A):
        yield f"A₀ is not random (init_lora_weights is {init}): two such adapters agree before they learn anything"
    if init == "mica":
        yield "B is frozen (init_lora_weights is mica): only A was trained"
    modules = {site.module: lora for site, lora in sites.items()}
    if split := _kinds(module for module, lora in modules.items() if lora.rows):
        yield (
            f"{split} fuses q, k and v: they share A, so by construction their φ is 1 on A, and on the input side of "
            "ΔW at full rank"
        )
    if unsplit := _kinds(module for module, lora in modules.items() if is_fused(module) and not lora.rows):
        yield (
            f"{unsplit} fuses q, k and v, and nothing tells which rows are whose, so that it is compared as one: "
            "the config of a base in a local folder would tell"
        )
    if others:
        yield f"only LoRA of linear layers is compared, and these are left out: {_kinds(others)}"


def _kinds(names: Iterable[str]) -> str:
    """The first four of the names; names that differ only in a number count once."""
    kinds = sorted({re.sub(r"\.\d+(?=\.)", ".*", name.removeprefix("base_model.model.")) for name in names})
    return ", ".join(kinds[:4]) + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else "")
