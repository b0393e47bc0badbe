"""An adapter of split layers as one that stock PEFT loads on the model as it is: q, k and v fused again.

python -m deltaw.commands.fold runs/x/snapshots/r8-s0/step-00000150 folded
"""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltaw.errors import UserError, run
from deltaw.model.names import Fused
from deltaw.run.adapter import CONFIG, WEIGHTS, Adapter, Site, load_adapter


@dataclass(frozen=True)
class _Layer:
    """One layer of the folded adapter: its factors, and the factor of B A in ΔW."""

    A: Float[Tensor, "rank d_in"]
    B: Float[Tensor, "d_out rank"]
    scale: float


def fold(folder: str | Path, output: str | Path) -> Path:
    """Write the adapter in `folder`, trained on split layers, to `output` for the base with these layers fused.

    A fused layer gets the A's of its parts one above another, their B's in blocks on its rows, zero elsewhere, and the
    sum of their ranks: r=8 on q and v becomes r=16. ΔW is the same, of layers that were not split the factors too.

    Returns:
        `output`, in PEFT's format.

    Raises:
        UserError: `folder` holds no adapter, or one that is not of split layers or whose ΔW is more than scale · B A;
            `output` exists.
    """
    path, target = Path(folder), Path(output)
    adapter = load_adapter(path)
    config: dict[str, Any] = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    _check(adapter, config, target)
    layers = _layers(adapter)
    of_factors = {tensor.name for pair in adapter.tensors.values() for tensor in pair}
    tensors = {name: tensor for name, tensor in load_file(path / WEIGHTS).items() if name not in of_factors}
    for module, layer in layers.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = layer.A.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = layer.B.contiguous()
    with _new(target) as new:
        save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
        (new / CONFIG).write_text(json.dumps(_config(config, adapter, layers), indent=2, sort_keys=True) + "\n")
    return target


def _check(adapter: Adapter, config: Mapping[str, Any], output: Path) -> None:
    if not adapter.split:
        raise UserError(
            f"{adapter.folder} is not of split layers (the metadata of {WEIGHTS} names none): PEFT loads it as it is"
        )
    if adapter.direction_only or config.get("lora_bias"):
        raise UserError(f"{adapter.folder} has a magnitude or a bias besides B A, which fused rows cannot keep apart")
    if output.exists():
        raise UserError(f"{output} exists: give the name of a new folder")


def _layers(adapter: Adapter) -> dict[str, _Layer]:
    """By module of the fused base, in the order of the sites."""
    parts: dict[str, dict[str, Site]] = {}  # fused layer → q, k or v → its site
    layers: dict[str, _Layer] = {}
    for site, lora in adapter.sites.items():
        fused, _, name = site.module.rpartition(".")
        if fused in adapter.split:
            parts.setdefault(fused, {})[name.removesuffix("_proj")] = site
        else:
            layers[site.module] = _Layer(adapter.A(site), adapter.B(site), lora.scale)
    return layers | {module: _folded(adapter, adapter.split[module], sites) for module, sites in parts.items()}


def _folded(adapter: Adapter, layout: Fused, sites: Mapping[str, Site]) -> _Layer:
    scale = next(adapter.sites[site].scale for site in sites.values())
    ranks = [adapter.sites[site].rank for site in sites.values()]
    A = torch.cat([adapter.A(site) for site in sites.values()])
    B = torch.zeros(layout.d_out, sum(ranks), dtype=A.dtype)
    first = 0
    for (letter, site), rank in zip(sites.items(), ranks, strict=True):
        rows = torch.cat([torch.arange(part.start, part.stop) for part in layout.rows[letter]])
        B[rows, first : first + rank] = adapter.B(site) * (adapter.sites[site].scale / scale)
        first += rank
    return _Layer(A, B, scale)


def _config(config: Mapping[str, Any], adapter: Adapter, layers: Mapping[str, _Layer]) -> dict[str, Any]:
    """The config with the folded layers' names, ranks and alphas: the commonest as `r` and `lora_alpha`."""
    settings = {module: _rank_and_alpha(layer, bool(config.get("use_rslora"))) for module, layer in layers.items()}
    ((rank, alpha), _), *_ = Counter(settings.values()).most_common()
    names = {module.rpartition(".")[2] for module in layers}
    return {
        **config,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module: own for module, (own, _) in settings.items() if own != rank},
        "alpha_pattern": {module: own for module, (_, own) in settings.items() if own != alpha},
        "target_modules": sorted(names if _by_last_part(config, adapter, layers) else layers),
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")) or any(row.transposed for row in adapter.split.values()),
    }


def _rank_and_alpha(layer: _Layer, rslora: bool) -> tuple[int, int | float]:
    rank = len(layer.A)
    alpha = round(layer.scale * (sqrt(rank) if rslora else rank), 12)
    return rank, int(alpha) if alpha.is_integer() else alpha


def _by_last_part(config: Mapping[str, Any], adapter: Adapter, layers: Mapping[str, _Layer]) -> bool:
    """Whether the last parts of the modules' names mean no other module: as in the config, with all that was split."""
    return not any("." in name for name in config["target_modules"]) and adapter.split.keys() <= layers.keys()


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder to fill, which is `folder` when the block ends; an error leaves none."""
    new = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    try:
        new.mkdir(parents=True)
        yield new
        new.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}): give another folder") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def main() -> None:
    """Fold the folder that the first argument names into that of the second."""
    if len(sys.argv) != 3:
        raise UserError("give two folders: python -m deltaw.commands.fold FOLDER OUTPUT")
    print(fold(*sys.argv[1:]))


if __name__ == "__main__":
    run(main)
