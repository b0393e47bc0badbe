"""Fold an adapter on split layers into one that PEFT loads on the model itself, whose layers fuse q, k and v.

deltaw fold runs/x/snapshots/r8-s0/step-00000150 folded
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from deltaw.errors import UserError, run
from deltaw.model.fused import Fused
from deltaw.run.adapter import Adapter, Site, load_adapter
from deltaw.run.files import replacing
from deltaw.run.peft_files import CONFIG, WEIGHTS, with_ranks
from deltaw.run.writer import write_adapter


@dataclass(frozen=True)
class _Layer:
    """One layer of the folded adapter, with ΔW = scale · B A."""

    A: Float[Tensor, "rank d_in"]
    B: Float[Tensor, "d_out rank"]
    scale: float


def fold(folder: str | Path, output: str | Path) -> Path:
    """Write the adapter in `folder`, trained on split layers, to `output` for the base whose layers are fused.

    A fused layer gets the A's of q, k and v stacked, their B's in blocks on its rows and zeros elsewhere, and the sum
    of their ranks: r=8 on q and v becomes r=16. ΔW stays the same; layers that were not split keep their factors.

    Returns:
        `output`, in PEFT's format.

    Raises:
        UserError: `folder` holds no adapter, or one without split layers, or one with more than scale · B A in ΔW; or
            `output` exists or cannot be written.
    """
    path, target = Path(folder), Path(output)
    adapter = load_adapter(path)
    config: dict[str, Any] = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    _check(adapter, config, target)
    layers = _layers(adapter)
    factors = {tensor.name for pair in adapter.tensors.values() for tensor in pair}
    tensors = {name: tensor for name, tensor in load_file(path / WEIGHTS).items() if name not in factors}
    for module, layer in layers.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = layer.A.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = layer.B.contiguous()
    try:
        with replacing(target, writer=f"-{os.getpid()}") as new:
            write_adapter(new, tensors, _config(config, adapter, layers), metadata={})
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error}): give another folder") from None
    return target


def _check(adapter: Adapter, config: Mapping[str, Any], output: Path) -> None:
    if not adapter.split:
        raise UserError(
            f"{adapter.folder} has no split layers (the metadata of {WEIGHTS} names none): PEFT loads it as it is"
        )
    if adapter.direction_only or config.get("lora_bias"):
        raise UserError(
            f"{adapter.folder} has a magnitude or a bias besides B A, which a fused layer cannot keep apart for q, k, v"
        )
    if output.exists():
        raise UserError(f"{output} exists: give the name of a new folder")


def _layers(adapter: Adapter) -> dict[str, _Layer]:
    """The layers of the folded adapter, by their names in the fused base."""
    parts: dict[str, dict[str, Site]] = {}  # fused layer → q, k or v → its site
    layers: dict[str, _Layer] = {}
    for site, lora in adapter.sites.items():
        fused, _, name = site.module.rpartition(".")
        if fused in adapter.split:
            parts.setdefault(fused, {})[name.removesuffix("_proj")] = site
        else:
            layers[site.module] = _Layer(adapter.A(site), adapter.B(site), lora.scale)
    return layers | {module: _fold(adapter, adapter.split[module], sites) for module, sites in parts.items()}


def _fold(adapter: Adapter, layout: Fused, sites: Mapping[str, Site]) -> _Layer:
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
    """The config with the folded layers' names, ranks and alphas."""
    names = {module.rpartition(".")[2] for module in layers}
    return {
        **with_ranks(config, {module: (len(layer.A), layer.scale) for module, layer in layers.items()}),
        "target_modules": sorted(names if _last_parts_suffice(config, adapter, layers) else layers),
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")) or any(row.transposed for row in adapter.split.values()),
    }


def _last_parts_suffice(config: Mapping[str, Any], adapter: Adapter, layers: Mapping[str, _Layer]) -> bool:
    """Whether the last parts of the layers' names fit no other module: they did before, and every split layer is in."""
    return not any("." in name for name in config["target_modules"]) and adapter.split.keys() <= layers.keys()


def main(argv: list[str] | None = None) -> None:
    """Fold an adapter; `argv` is the folder to read and the folder to write, by default from the command line."""
    parser = argparse.ArgumentParser(
        "deltaw fold", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="an adapter on split layers, as a snapshot of a run")
    parser.add_argument("output", help="a new folder for the folded adapter")
    arguments = parser.parse_args(argv)
    print(fold(arguments.folder, arguments.output))


if __name__ == "__main__":
    run(main)
