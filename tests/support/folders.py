"""Adapter folders and run directories made by hand, in the formats that PEFT and training write."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

WIDTH = 16
SCALE = {"alpha": 16.0, "scaling": "alpha/r"}


def write_adapter(
    folder: Path,
    rank: int,
    layers: int = 4,
    seed: int = 0,
    B: float = 1.0,
    projections: str = "qv",
    **config: object,
) -> Path:
    """Random factors of q and v in every layer, all of B times `B`; `config` has the last word in the config."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in [f"base_model.model.layers.{n}.{p}_proj" for n in range(layers) for p in projections]:
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, WIDTH, generator=generator)
        tensors[f"{module}.lora_B.weight"] = B * torch.randn(WIDTH, rank, generator=generator)
    defaults = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": "tiny"}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(defaults | config))
    return folder


def arm_record(name: str) -> dict[str, Any]:
    """What `run.json` tells of an arm of this name, as r8-s0-lr0.01, r8-s0-a32-random or r8-s0-shadow1."""
    arm = re.fullmatch(r"r(\d+)-s(\d+)(?:-lr([\d.]+))?(?:-(a\d+))?(?:-([a-z_]+)(\d*))?", name)
    assert arm is not None
    more: dict[str, object] = {"variant": arm[4], "alpha": float(arm[4][1:])} if arm[4] else {}
    more |= {"shadow": int(arm[6])} if arm[6] else {}
    settings = {"rank": int(arm[1]), "seed": int(arm[2]), "lr": float(arm[3] or 0.002), "control": arm[5]}
    return {"name": name} | settings | SCALE | more


def write_run(path: Path, *names: str, base: str = "a" * 64, layers: int = 4) -> Path:
    """A run with arms of these names (as r4-s0-lr0.01, r8-s0-a32-random), snapshots after steps 0 and 10, and losses.

    The first arm's validation loss falls from 4 by 0.5, the second's by 0.25, the third's by a sixth and so on. Shadows
    (r8-s0-shadow1) have no losses. A control has the factors of its arm.
    """
    arms, rows, validated = [], ["step,arm,name,value"], 0
    for name in names:
        arm = arm_record(name)
        arms.append(arm)
        rank, seed, shadow = arm["rank"], arm["seed"], arm.get("shadow", 0)
        validated += not shadow
        for step in (0, 10):
            draw = 1000 * rank + step + 10**6 * seed + 10**8 * shadow
            write_adapter(path / "snapshots" / name / f"step-{step:08d}", rank, layers, seed=draw, B=step / 10)
            if not shadow:
                rows += [f"{step},{name},train/loss,1.5", f"{step},{name},val/loss,{4 - 0.05 * step / validated}"]
    (path / "run.json").write_text(json.dumps({"base": {"name": "tiny", "sha256": base}, "arms": arms}))
    (path / "metrics.csv").write_text("\n".join(rows) + "\n")
    return path


def write_evaluation(run: Path, losses: dict[tuple[str, int], list[float]], labels: list[int]) -> None:
    """The losses that the validations of a run measured, by arm and step, on examples with so many labels."""
    tables = [
        pd.DataFrame({"arm": arm, "step": step, "example": range(len(labels)), "loss": of_arm, "labels": labels})
        for (arm, step), of_arm in losses.items()
    ]
    pd.concat(tables).assign(right=0).to_parquet(run / "evaluation.parquet")
