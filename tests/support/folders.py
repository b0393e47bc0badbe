"""Adapter folders and run directories made by hand, in the formats that PEFT and training write."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH = 16
SCALE = {"alpha": 16.0, "scaling": "alpha/r"}


def write_adapter(folder: Path, rank: int, layers: int = 4, seed: int = 0, B: float = 1.0, **config: object) -> Path:
    """Random factors of q and v in every layer, all of B times `B`; `config` has the last word in the config."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in [f"base_model.model.layers.{n}.{p}_proj" for n in range(layers) for p in "qv"]:
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, WIDTH, generator=generator)
        tensors[f"{module}.lora_B.weight"] = B * torch.randn(WIDTH, rank, generator=generator)
    defaults = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": "tiny"}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(defaults | config))
    return folder


def write_run(path: Path, *names: str, base: str = "a" * 64) -> Path:
    """A run with arms of these names (as r4-s0-lr0.01, r8-s0-a32-random), snapshots after steps 0 and 10, and losses.

    The first arm's validation loss falls from 4 by 0.5, the second's by 0.25, the third's by a sixth and so on.
    """
    arms, rows = [], ["step,arm,name,value"]
    for number, name in enumerate(names, start=1):
        arm = re.fullmatch(r"r(\d+)-s(\d+)(?:-lr([\d.]+))?(?:-(a\d+))?(?:-([a-z]+))?", name)
        assert arm is not None
        rank, seed, lr, control = int(arm[1]), int(arm[2]), float(arm[3] or 0.002), arm[5]
        variant = {"variant": arm[4]} if arm[4] else {}
        alpha = {"alpha": float(arm[4][1:])} if arm[4] else {}
        arms.append({"name": name, "rank": rank, "seed": seed, "lr": lr, "control": control} | SCALE | variant | alpha)
        for step in (0, 10):
            write_adapter(path / "snapshots" / name / f"step-{step:08d}", rank, seed=1000 * rank + step, B=step / 10)
            rows += [f"{step},{name},train/loss,1.5", f"{step},{name},val/loss,{4 - 0.05 * step / number}"]
    (path / "run.json").write_text(json.dumps({"base": {"name": "tiny", "sha256": base}, "arms": arms}))
    (path / "metrics.csv").write_text("\n".join(rows) + "\n")
    return path
