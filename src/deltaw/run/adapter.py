"""One adapter folder in PEFT's format, read without PEFT: its config, what it adapts, and its factors site by site."""

import json
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
from deltaw.model.names import Fused, fused_layout, is_fused, layer_of, projection_of
from deltaw.run.tensors import Buffers, Stored, read_header, read_metadata, stored

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SPLIT = "deltaw.model.split"  # in the metadata of the weights: what fused layers were split before training, as JSON

_BASE_CONFIG = "config.json"  # of a transformers model

# PEFT's wrapper around the base, the module, and the adapter's name where the state was saved with it.
_FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")

# `init_lora_weights`, in lower case: B₀ = 0; B₀ ≠ 0 and yet B₀A₀ = 0. Any other starts elsewhere.
_ZERO_B = ("true", "gaussian", "eva")
_ZERO_PRODUCT = ("orthogonal", "mica")
_CHOSEN_A = ("eva", "pissa", "olora", "corda", "loftq", "lora_ga")  # A₀ follows from the base or from data

_NOT_B_A = {
    "use_qalora": "A acts on pooled inputs",
    "use_bdlora": "the factors are stored as blocks of A or B",
    "kasa_config": "a learned diagonal stands between B and A",
    "arrow_config": "a router mixes several adapters",
}


@dataclass(frozen=True, order=True)
class Site:
    """Where LoRA sits: a projection of a layer, whatever the module's own name is."""

    layer: int  # from 1, as in the paper; 0 for a module outside of the layers
    projection: str  # "q", "k", "v", "o", or the last part of the module's name
    module: str = field(compare=False)  # its own name in the base

    def __str__(self) -> str:
        return f"{self.projection} of layer {self.layer}"


@dataclass(frozen=True)
class Lora:
    """What a folder has at one site, known from the file's header: nothing is read for it."""

    rank: int
    d_in: int
    d_out: int
    scale: float  # of B A in ΔW
    rows: tuple[range, ...] | None = None  # of B, where a fused layer holds several projections: this one's rows

    def rows_of(self, whole: Float[Tensor, "rows n"]) -> Float[Tensor, "d_out n"]:
        """This projection's part of `whole`: B of its layer, or the base's weight as (d_out, d_in)."""
        return whole if self.rows is None else torch.cat([whole[rows.start : rows.stop] for rows in self.rows])


@dataclass(frozen=True)
class Origin:
    """The run that an adapter is a snapshot of."""

    run: Path
    arm: str
    step: int
    base_hash: str


@dataclass(frozen=True)
class Adapter:
    """One arm after one step, or any PEFT adapter: what it adapts, and its factors, read when they are asked for."""

    name: str  # the arm's, or the folder as it was given
    folder: Path
    base: str  # `base_model_name_or_path`; empty where the config has none
    sites: dict[Site, Lora]  # in the order of the sites
    origin: Origin | None = None  # None for a folder that was not found through a run
    start: "Adapter | None" = None  # the same adapter before the first step, where it is known: A₀ and B₀
    remarks: tuple[str, ...] = ()  # what the reader of an analysis should know, in whole sentences
    direction_only: bool = False  # DoRA: ΔW has a magnitude besides, which B A does not tell
    alters_base: bool = False  # it started from B₀A₀ ≠ 0, which most such starts take out of the base
    transposed: bool = False  # the base stores its weights as (d_in, d_out)
    split: dict[str, Fused] = field(default_factory=dict)  # the base's fused layers of which the sites are parts
    tensors: dict[Site, tuple[Stored, Stored]] = field(default_factory=dict, repr=False)  # A and B of whole layers

    def A(self, site: Site, buffers: Buffers | None = None) -> Float[Tensor, "rank d_in"]:  # noqa: N802
        """Read A of `site` from the file, in the dtype in which it is stored.

        Args:
            site: one of `sites`.
            buffers: memory to use again; the tensor is valid until the next A of this adapter is read into it.

        Raises:
            UserError: the file has changed since it was opened, or, without `buffers`, A holds a value that is not
                finite.
        """
        return self.tensors[site][0].read(buffers, kind=(self.folder, "A"))

    def B(self, site: Site, buffers: Buffers | None = None) -> Float[Tensor, "d_out rank"]:  # noqa: N802
        """Read B of `site` from the file, of a fused layer this projection's rows. As `A` in all else."""
        return self.sites[site].rows_of(self.tensors[site][1].read(buffers, kind=(self.folder, "B")))


def load_adapter(folder: str | Path, start: str | Path | None = None) -> Adapter:
    """Open a folder with `adapter_config.json` and `adapter_model.safetensors`, of which only the header is read.

    Its sites are the linear layers with LoRA; what else is in the file is named in a remark. A layer that fuses q, k
    and v is a site for each of them where its shapes, or the config of a base that is a local folder, tell them apart.

    Args:
        folder: what PEFT's save_pretrained wrote.
        start: such a folder of the same adapter before its first step.

    Raises:
        UserError: a file is missing or broken, ΔW is not scale · B A, a factor is missing or does not fit its
            partner, or `start` has other sites, ranks or widths.
    """
    path = Path(folder)
    config = _read_config(path / CONFIG)
    pairs, others = _read_pairs(path / WEIGHTS, config)
    base = str(config.get("base_model_name_or_path") or "")
    sites = _loras(pairs, config, _read_base_config(base))
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
        split=_read_split(path / WEIGHTS),
        tensors={site: pairs[site.module] for site in sites},
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give a folder that PEFT's save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): save the adapter again") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise UserError(f"{path} has peft_type {kind!r}: only of 'LORA' adapters ΔW is scale · B A, give such a one")
    for key, reason in _NOT_B_A.items():
        if config.get(key):
            raise UserError(f"{path} has {key}: {reason}, so ΔW is not scale · B A: give an adapter without it")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise UserError(f"{path} has lora_alpha {alpha!r}, not the number that scales ΔW: put it right")
    return config


def _read_base_config(base: str) -> dict[str, Any]:
    """The config of a base that is a local folder; empty for any other."""
    try:
        config = json.loads((Path(base) / _BASE_CONFIG).read_text(encoding="utf-8")) if base else {}
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _read_pairs(path: Path, config: dict[str, Any]) -> tuple[dict[str, tuple[Stored, Stored]], list[str]]:
    """A and B of every linear layer by its module, and what else there is: tensors, and modules of another kind."""
    header = read_header(path)
    layers: dict[str, dict[str, str]] = {}  # module → factor → tensor
    names = set()  # of adapters
    others = []
    for name in header:
        if match := _FACTOR.fullmatch(name):
            layers.setdefault(match["module"], {})[match["factor"]] = name
            names.add(match["adapter"])
        else:
            others.append(name)
    if len(names) > 1:
        raise UserError(f"{path} holds the adapters {sorted(map(str, names))}: save each to a folder of its own")
    pairs = {}
    for module, factors in layers.items():
        for factor, partner in ("AB", "BA"):
            if factor not in factors:
                name = factors[partner].replace(f".lora_{partner}.", f".lora_{factor}.")
                raise UserError(f"{path} lacks {name} and has its partner: save the adapter again")
        if _is_linear(module, [header[name]["shape"] for name in factors.values()], config):
            A, B = (stored(path, factors[factor], header[factors[factor]]) for factor in "AB")
            pairs[module] = A, B
            _check_fit(path, module, *pairs[module])
        else:
            others.append(module)
    if not pairs:
        raise UserError(f"{path} has no tensor named *.lora_A.weight: it holds no LoRA of linear layers")
    return pairs, others


def _read_split(path: Path) -> dict[str, Fused]:
    """Fused layer of the base → its rows, of those that were split before training."""
    try:
        return {module: Fused(**layout) for module, layout in json.loads(read_metadata(path).get(SPLIT, "{}")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has metadata {SPLIT} that tells no rows ({error}): save the adapter again") from None


def _is_linear(module: str, shapes: list[list[int]], config: dict[str, Any]) -> bool:
    """Whether this is no convolution and no parameter that stacks experts, whose A and B lie one upon another."""
    stacks = [name.rpartition(".")[0] or "experts" for name in config.get("target_parameters") or []]
    owner = module.replace(".base_layer", "")  # PEFT wraps a module once for each of its parameters
    return min(map(len, shapes)) <= 2 and not f".{owner}".endswith(tuple(f".{stack}" for stack in stacks))


def _check_fit(path: Path, module: str, A: Stored, B: Stored) -> None:
    if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1] or 0 in (*A.shape, *B.shape):
        shapes = f"A {A.shape} and B {B.shape}, not (rank, d_in) and (d_out, rank)"
        raise UserError(f"{path}: {module} has {shapes}: save the adapter again")


def _loras(pairs: dict[str, tuple[Stored, Stored]], config: dict[str, Any], base: dict[str, Any]) -> dict[Site, Lora]:
    """What is at each site, in the order of the sites."""
    found = []
    for module, (A, B) in pairs.items():
        (rank, d_in), (d_out, _) = A.shape, B.shape
        layer, scale = layer_of(module) or 0, _scale(config, module, rank)
        layout = fused_layout(module, d_in, d_out, bool(config.get("fan_in_fan_out")), base)
        for projection, rows in (layout.rows if layout else {}).items():
            found.append((Site(layer, projection, module), Lora(rank, d_in, sum(map(len, rows)), scale, rows)))
        if not layout:
            found.append((Site(layer, projection_of(module), module), Lora(rank, d_in, d_out, scale)))
    times = Counter(site for site, _ in found)
    shared = {site.projection for site, number in times.items() if number > 1}
    told_apart = [(_by_path(site, lora) if site.projection in shared else site, lora) for site, lora in found]
    return dict(sorted(told_apart, key=itemgetter(0)))


def _by_path(site: Site, lora: Lora) -> Site:
    """A site under its path: another shares layer and projection with it (decoder, experts), or does in some layer."""
    path_without_layer = re.sub(r"\.\d+(?=\.)", "", site.module, count=1)
    return replace(site, projection=path_without_layer + (f".{site.projection}" if lora.rows else ""))


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """The factor of B A in ΔW. The rank is A's own, so that `rank_pattern` is in it already."""
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
    """Whether B₀A₀ ≠ 0. A known start has the last word: PEFT's own recipe for PiSSA saves "true" in the config."""
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
        yield "ΔW of a DoRA has a magnitude besides: φ is that of its direction, scale · B A, alone"
    if starts_off_zero:
        yield (
            f"It started from B₀A₀ ≠ 0 (init_lora_weights is {init}), which most such starts take out of the base: "
            "what it learned is B A − B₀A₀"
        )
    if init.startswith(_CHOSEN_A):
        yield f"A₀ is not random (init_lora_weights is {init}): two such adapters agree before they learn anything"
    if init == "mica":
        yield "B is frozen (init_lora_weights is mica): only A was trained"
    modules = {site.module: lora for site, lora in sites.items()}
    if split := _kinds(module for module, lora in modules.items() if lora.rows):
        yield (
            f"{split} fuses q, k and v: they share A, so that by construction their φ is one on A, and on the input "
            "side of ΔW at full rank"
        )
    if whole := _kinds(module for module, lora in modules.items() if is_fused(module) and not lora.rows):
        yield (
            f"{whole} fuses q, k and v in rows that nothing tells apart, so that it is compared as one: "
            "the config of a base that is a local folder would tell"
        )
    if others:
        yield f"what it has besides LoRA of linear layers is not compared: {_kinds(others)}"


def _kinds(names: Iterable[str]) -> str:
    """The first few of the names, those that differ by their numbers alone once."""
    kinds = sorted({re.sub(r"\.\d+(?=\.)", ".*", name.removeprefix("base_model.model.")) for name in names})
    return ", ".join(kinds[:4]) + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else "")
