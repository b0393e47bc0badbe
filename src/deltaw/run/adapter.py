"""One adapter folder in PEFT's format, read without PEFT: its config, its sites, and the factors of each site."""

import re
from collections.abc import Iterable, Iterator, Mapping
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
from deltaw.model.names import is_fused, projection_of
from deltaw.run.peft_files import CONFIG, Contents, alphas, read_base_config, read_config, read_contents
from deltaw.run.places import layers_and_names, remarks_on_layers, unwrapped
from deltaw.run.same_modules import paired
from deltaw.run.tensors import Buffers, StoredTensor

# Values of `init_lora_weights` in lower case. First: B₀ = 0. Second: B₀ ≠ 0, yet B₀A₀ = 0. Third: the base stays as it
# was, and B₀ is random, or unknown where a converter wrote the config. All others: B₀A₀ ≠ 0, taken out of the base.
_ZERO_B = ("true", "gaussian", "eva")
_ZERO_PRODUCT = ("orthogonal", "mica")
_RANDOM_B = ("false", "none")
_CHOSEN_A = ("eva", "pissa", "olora", "corda", "loftq", "lora_ga")  # the base or the data determine A₀


@dataclass(frozen=True, order=True)
class Site:
    """A place of LoRA: a projection of a layer. Two bases may name its module differently."""

    layer: int  # from 1, as in the paper; 0 for a module outside the layers
    projection: str  # "q", "k", "v", "o", or the end of the module's name; in a further tower "vision_tower.q"
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
    experiment: tuple[Path, ...] = ()  # all runs of the experiment, if the run is one of several

    @property
    def runs(self) -> tuple[Path, ...]:
        """All runs of the experiment."""
        return self.experiment or (self.run,)


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
            UserError: there is no such site, the file has changed since it was opened, or, without `buffers`, A holds a
                value that is not finite.
        """
        self._check_site(site)
        return self.tensors[site][0].read(buffers, kind=(self.folder, "A"))

    def B(self, site: Site, buffers: Buffers | None = None) -> Float[Tensor, "d_out rank"]:  # noqa: N802
        """Read B of `site` from the file; for a fused layer, the rows of this projection. Otherwise as `A`."""
        self._check_site(site)
        return self.sites[site].rows_of(self.tensors[site][1].read(buffers, kind=(self.folder, "B")))

    def __repr__(self) -> str:
        """One line, however many sites there are."""
        ranks = sorted({lora.rank for lora in self.sites.values()})
        shown = " to ".join(map(str, dict.fromkeys([ranks[0], ranks[-1]]))) if ranks else "none"
        return f"Adapter({self.name!r}, base={self.base!r}, {len(self.sites)} sites, rank {shown})"

    def _check_site(self, site: object) -> None:
        if site not in self.sites:
            raise UserError(f"{self.name} has no site {site!r}: give one of its sites, as next(iter(adapter.sites))")

    def named_as(self, other: "Adapter") -> "Adapter":
        """This adapter with the sites of `other` at the modules that both adapt, whatever wraps the two models.

        Its other sites stay, with the path of the module as the projection where `other` has such a site.

        Raises:
            UserError: the names do not tell two modules apart.
        """
        ours, theirs = self._names(), other._names()
        if ours == theirs:
            return self
        pairs = paired(theirs, ours)
        sites = {site: theirs[pairs[name]] for name, site in ours.items() if name in pairs}
        taken = set(theirs.values())
        for site in [site for site in ours.values() if site not in sites]:
            sites[site] = next((free for free in (site, *_by_path(site)) if free not in taken), site)
            if sites[site] in taken:
                raise UserError(f"{site.module} of {self.name} cannot be told from {other.name}'s {site}: rename it")
            taken.add(sites[site])
        return self._renamed(dict(sorted(sites.items(), key=itemgetter(1))))

    def _names(self) -> dict[str, Site]:
        """The sites by the names of their linear maps."""
        return {_name_of(site, lora): site for site, lora in self.sites.items()}

    def _renamed(self, sites: Mapping[Site, Site]) -> "Adapter":
        layers = _remarks_on_layers(self.sites)
        return replace(
            self,
            sites={new: self.sites[site] for site, new in sites.items()},
            tensors={new: self.tensors[site] for site, new in sites.items()},
            start=self.start and self.start._renamed(sites),
            remarks=tuple(remark for remark in self.remarks if remark not in layers),
        )


def _name_of(site: Site, lora: Lora) -> str:
    """The name of a linear map: its module, or the part of a fused one, named as if the module were split."""
    return f"{site.module}.{projection_of(site.projection).removesuffix('_proj')}_proj" if lora.rows else site.module


def _by_path(site: Site) -> Iterator[Site]:
    """The site with its module's path as the projection, without its layer or in full."""
    yield replace(site, projection=re.sub(rf"\.{site.layer - 1}(?=\.)", "", site.module, count=1))
    yield replace(site, projection=site.module)


def _remarks_on_layers(sites: Mapping[Site, Lora]) -> list[str]:
    return remarks_on_layers({_name_of(site, lora): site.layer for site, lora in sites.items()})


def load_adapter(folder: str | Path, start: str | Path | None = None, base: str | Path | None = None) -> Adapter:
    """Open a folder with `adapter_config.json` and `adapter_model.safetensors`, and read the header of the weights.

    The sites are the linear layers with LoRA; a remark names everything else in the file. A layer that fuses q, k and
    v becomes one site for each of them, if its shapes, the base's config or the name of a published base tell which
    rows are whose.

    Args:
        folder: written by PEFT's save_pretrained.
        start: a folder with the same adapter before its first step.
        base: a folder with the `config.json` of the base; default: the base that the adapter names, if it is a local
            folder or in the local cache of the Hub.

    Raises:
        UserError: a file is missing or broken, ΔW is not scale · B A, a factor is missing or does not fit its
            partner, two modules have one name, or `start` has other sites, ranks or widths.
    """
    path = Path(folder)
    config = read_config(path / CONFIG)
    contents = read_contents(path, config)
    modules = _modules(path, contents)
    sites = _loras(path, modules, contents, config, base)
    started = None if start is None else load_adapter(start, base=base)
    if started:
        _check_start(path, sites, started)
    alters_base = _starts_off_zero(config, started)
    direction_only = bool(config.get("use_dora")) or any("lora_magnitude_vector" in name for name in contents.others)
    return Adapter(
        name=str(folder),
        folder=path,
        base=str(config.get("base_model_name_or_path") or ""),
        sites=sites,
        start=started,
        remarks=tuple(_remarks(config, sites, contents, alters_base, direction_only)),
        direction_only=direction_only,
        alters_base=alters_base,
        transposed=bool(config.get("fan_in_fan_out")),
        split={unwrapped(module): layout for module, layout in contents.split.items()},
        tensors={site: contents.pairs[modules[site.module]] for site in sites},
    )


def _modules(path: Path, contents: Contents) -> dict[str, str]:
    """Name in the base → name in the file, which compiling and sharding may have added to."""
    modules: dict[str, str] = {}
    for stored in contents.pairs:
        if (twin := modules.setdefault(unwrapped(stored), stored)) != stored:
            raise UserError(f"{path}: {twin} and {stored} are one module in two wrappers: save each to its own folder")
    return modules


def _loras(
    path: Path, modules: Mapping[str, str], contents: Contents, config: dict[str, Any], base: str | Path | None
) -> dict[Site, Lora]:
    """Shapes and scale by site, in the order of the sites."""
    alpha_of, name = alphas(config, list(modules)), _names_of_base(config)
    of_base = _config_of_base(config, base)
    loras: list[tuple[str, str, Lora]] = []  # name of the linear map, module, shapes and scale
    for module, stored in modules.items():
        (rank, d_in), (d_out, _) = (factor.shape for factor in contents.pairs[stored])
        scale = alpha_of[module] / (sqrt(rank) if config.get("use_rslora") else rank)
        layout = fused_layout(module, d_in, d_out, bool(config.get("fan_in_fan_out")), of_base, name)
        for letter, rows in (layout.rows if layout else {}).items():
            loras.append((f"{module}.{letter}_proj", module, Lora(rank, d_in, sum(map(len, rows)), scale, rows)))
        if not layout:
            loras.append((module, module, Lora(rank, d_in, d_out, scale)))
    named = layers_and_names([name for name, _, _ in loras])
    sites = {Site(*named[name], module): lora for name, module, lora in loras}
    if len(sites) < len(loras):
        raise UserError(f"{path}: two of its modules have one name, and cannot be told apart: save the adapter again")
    return dict(sorted(sites.items(), key=itemgetter(0)))


def _config_of_base(config: dict[str, Any], base: str | Path | None) -> dict[str, Any]:
    """The config in the folder `base`, else that of the base which the adapter names; empty where neither is known."""
    named = str(config.get("base_model_name_or_path") or "")
    return (read_base_config(str(base)) if base else {}) or read_base_config(named)


def _names_of_base(config: dict[str, Any]) -> str:
    """What the adapter's config calls its base, and the module of transformers with its architecture."""
    mapping = config.get("auto_mapping")
    architecture = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return f"{config.get('base_model_name_or_path') or ''} {architecture or ''}"


def _check_start(path: Path, sites: dict[Site, Lora], start: Adapter) -> None:
    for site in sorted(sites.keys() | start.sites.keys()):
        here, there = sites.get(site), start.sites.get(site)
        if here != there:
            raise UserError(
                f"{start.folder} is not the start of {path}: {site} is {there or 'not adapted'} there and "
                f"{here or 'not adapted'} here; give the snapshot of the same adapter before its first step"
            )


def _starts_off_zero(config: dict[str, Any], start: Adapter | None) -> bool:
    """Whether ΔW is B A − B₀A₀. A known start overrules the config: PEFT's recipe for PiSSA saves "true" there."""
    init = _init(config)
    if init in _ZERO_PRODUCT:
        return False
    return bool(start.B(next(iter(start.sites))).any()) if start else init not in _ZERO_B + _RANDOM_B


def _init(config: dict[str, Any]) -> str:
    return str(config.get("init_lora_weights", True)).lower()


def _remarks(
    config: dict[str, Any], sites: dict[Site, Lora], contents: Contents, starts_off_zero: bool, direction_only: bool
) -> Iterator[str]:
    init = _init(config)
    if direction_only:
        yield "ΔW of a DoRA has a magnitude besides: φ compares its direction, scale · B A, alone"
    if starts_off_zero:
        yield (
            f"It started from B₀A₀ ≠ 0 (init_lora_weights is {init}), which most such starts subtract from the base: "
            "it learned B A − B₀A₀"
        )
    elif init in _RANDOM_B:
        yield (
            f"init_lora_weights is {init}, as converters write it too: ΔW is all that it adds to the base, B A, and "
            "holds B₀A₀ if training began with a random B₀"
        )
    if init.startswith(_CHOSEN_A):
        yield f"A₀ is not random (init_lora_weights is {init}): two such adapters agree before they learn anything"
    if init == "mica":
        yield "B is frozen (init_lora_weights is mica): only A was trained"
    modules = {site.module: lora for site, lora in sites.items()}
    for parts, fused in (("q, k and v", True), ("q and the gate of the attention's output", False)):
        if split := _kinds(module for module, lora in modules.items() if lora.rows and is_fused(module) == fused):
            yield (
                f"{split} fuses {parts}: they share A, so by construction their φ is 1 on A, and on the input side of "
                "ΔW at full rank; there they count once"
            )
    if unsplit := _kinds(module for module, lora in modules.items() if is_fused(module) and not lora.rows):
        yield (
            f"{unsplit} fuses q, k and v, and nothing tells which rows are whose, so that it is compared as one: "
            "base=, a folder with the base's config.json, would tell"
        )
    yield from _remarks_on_layers(sites)
    if contents.assumed:
        yield (
            f"{_kinds(contents.assumed)} holds two parts as loralib merges them, which count as q and v, as in the "
            "paper's code: enable_lora in adapter_config.json would tell"
        )
    if contents.others:
        yield f"only LoRA of linear layers is compared, and these are left out: {_kinds(contents.others)}"


def _kinds(names: Iterable[str]) -> str:
    """The first four of the names; names that differ only in a number count once."""
    kinds = sorted({re.sub(r"\.\d+(?=\.)", ".*", name.removeprefix("base_model.model.")) for name in names})
    return ", ".join(kinds[:4]) + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else "")
