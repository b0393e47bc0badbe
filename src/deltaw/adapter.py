"""One adapter folder in PEFT's format, read without PEFT: its config, and A and B of every site."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deltaw.cli import UserError
from deltaw.projection import PROJECTIONS, layer_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."  # PEFT's wrapper around the base
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, order=True)
class Site:
    """Where LoRA sits: a projection of a layer, whatever the module's own name is."""

    layer: int  # from 1, as in the paper; 0 for a module outside of the layers
    projection: str  # "q", "v", …
    module: str = field(compare=False)  # its own name in the base

    def __str__(self) -> str:
        return f"{self.projection} of layer {self.layer}"


@dataclass(frozen=True)
class Factors:
    """A and B of one site; ΔW = scale · B A, but for a DoRA, whose ΔW has a magnitude besides."""

    A: Float[Tensor, "rank d_in"]
    B: Float[Tensor, "d_out rank"]
    scale: float


@dataclass(frozen=True)
class Origin:
    """The run that an adapter is a snapshot of."""

    run: Path
    step: int
    base_hash: str


@dataclass(frozen=True)
class Adapter:
    """The factors of one arm after one step, or of any PEFT adapter."""

    name: str  # the arm's, or the folder as it was given
    folder: Path
    base: str  # `base_model_name_or_path`; empty where the config has none
    factors: dict[Site, Factors]  # in the order of the sites
    origin: Origin | None = None  # None for a folder that was not found through a run


def load_adapter(folder: str | Path) -> Adapter:
    """Read a folder with `adapter_config.json` and `adapter_model.safetensors`.

    Only the factors of linear layers: no embeddings, biases, DoRA magnitudes or fully trained modules.

    Raises:
        UserError: a file is missing or broken, the adapter is not LoRA, or a factor is missing, does not
            fit its partner, or holds a value that is not finite.
    """
    path = Path(folder)
    config = _read_config(path / CONFIG)
    pairs = _read_pairs(path / WEIGHTS)
    factors = {}
    for site in _sites(list(pairs)):
        A, B = pairs[site.module]
        factors[site] = Factors(A, B, _scale(config, site.module, rank=len(A)))
    base = config.get("base_model_name_or_path") or ""
    return Adapter(str(folder), path, str(base), factors)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give a folder that PEFT's save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): save the adapter again") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise UserError(f"{path} has peft_type {kind!r}: only 'LORA' adapters have the factors A and B")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise UserError(f"{path} has lora_alpha {alpha!r}, not the number that scales ΔW: put it right")
    return config


def _read_pairs(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every module. The tensors stay in the file, mapped, until they are used."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.endswith((_A, _B))]  # noqa: SIM118 (it is no dict)
            tensors = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise UserError(f"{path} is missing: save the adapter as safetensors, no .bin is read") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy or save the adapter again") from None
    if not tensors:
        raise UserError(f"{path} has no tensor named *{_A}: it holds no LoRA of linear layers")
    modules = dict.fromkeys(name.removesuffix(_A).removesuffix(_B) for name in tensors)
    return {module.removeprefix(_PREFIX): _pair(path, tensors, module) for module in modules}


def _pair(path: Path, tensors: dict[str, Tensor], module: str) -> tuple[Tensor, Tensor]:
    for name in (module + _A, module + _B):
        if name not in tensors:
            raise UserError(f"{path} lacks {name} and has its partner: save the adapter again")
        if not tensors[name].isfinite().all():
            raise UserError(f"{path}: {name} holds NaN or infinity: take a step before training diverged")
    A, B = tensors[module + _A], tensors[module + _B]
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1] or 0 in (*A.shape, *B.shape):
        shapes = f"A {tuple(A.shape)} and B {tuple(B.shape)}, not (rank, d_in) and (d_out, rank)"
        raise UserError(f"{path}: {module} has {shapes}: save the adapter again")
    return A, B


def _sites(modules: list[str]) -> list[Site]:
    """The sites of the modules, sorted."""
    sites = [Site(layer_of(module) or 0, _projection(module), module) for module in modules]
    times = Counter(sites)
    return sorted(site if times[site] == 1 else _told_apart(site) for site in sites)


def _projection(module: str) -> str:
    name = module.rpartition(".")[2]
    return PROJECTIONS.get(name, name)


def _told_apart(site: Site) -> Site:
    """A site that shares layer and projection with others (decoder, experts), under its path."""
    path_without_layer = re.sub(r"\.\d+(?=\.)", "", site.module, count=1)
    return replace(site, projection=path_without_layer)


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """The factor of B A in ΔW. The rank is A's own, so that `rank_pattern` is in it already."""
    patterns = config.get("alpha_pattern") or {}
    fitting = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module))  # PEFT's rule
    alpha = next(fitting, config["lora_alpha"])
    return alpha / (sqrt(rank) if config.get("use_rslora") else rank)
