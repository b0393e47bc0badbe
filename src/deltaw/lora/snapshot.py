"""An arm as PEFT saves it: its tensors by PEFT's names, and its `adapter_config.json`."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.layers import adapted_layers, arm_heads
from deltaw.lora.peft_format import complete_config
from deltaw.lora.sharded import gather
from deltaw.model.names import is_conv1d
from deltaw.run.peft_files import WEIGHTS

_PREFIX = "base_model.model."  # what PEFT puts before the name of a module


def adapter_tensors(base: nn.Module, index: int) -> dict[str, Tensor]:
    """Factors and head of the arm at `index`, as `parameters_of` counts, by PEFT's names in its safetensors.

    All processes have to call it together, since each may hold only a part.
    """
    tensors = {}
    for module, layer in adapted_layers(base):
        tensors[f"{module}.lora_A.weight"] = layer.A[index]
        tensors[f"{module}.lora_B.weight"] = layer.B[index]
    for module, head in arm_heads(base):
        for copy in head.arms[index : index + 1]:  # a shadow has none
            tensors |= {f"{module}.{name}": weight for name, weight in copy.named_parameters()}
    return {f"{_PREFIX}{name}": gather(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}


def stored_tensors(snapshot: Path) -> dict[str, Tensor]:
    """The tensors of a snapshot as `adapter_tensors` gave them, by names without PEFT's prefix.

    Raises:
        UserError: the file is missing or broken.
    """
    file = snapshot / WEIGHTS
    try:
        return {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({error}): bring it back, or train the run again") from None


def adapter_config(arm: Arm, base: nn.Module, base_path: str, task_type: str) -> dict[str, object]:
    """PEFT's `adapter_config.json` of an arm on `base`: loading it restores the arm's scales and modules.

    PEFT has no constant scale, so "constant" is written as alpha · r with PEFT's rule alpha/r. A module whose rank or
    alpha is not the arm's is written by its full name, because patterns depend on an order that JSON need not keep.
    """
    modules = [module for module, _ in adapted_layers(base)]
    ranks = {f"^{module}": arm.rank_of(module) for module in modules}
    alphas = {f"^{module}": _peft_alpha(arm, arm.alpha_of(module), arm.rank_of(module)) for module in modules}
    alpha = _peft_alpha(arm, arm.alpha, arm.rank)
    return complete_config(
        {
            "r": arm.rank,
            "lora_alpha": alpha,
            "rank_pattern": {module: r for module, r in ranks.items() if r != arm.rank},
            "alpha_pattern": {module: a for module, a in alphas.items() if a != alpha},
            "lora_dropout": arm.dropout,
            "use_rslora": arm.scaling == "rslora",
            "target_modules": _target_modules(base, modules),
            "fan_in_fan_out": any(is_conv1d(layer.base) for _, layer in adapted_layers(base)),
            "task_type": task_type,
            "modules_to_save": None if arm.shadow else sorted(name for name, _ in arm_heads(base)) or None,
            "base_model_name_or_path": base_path,
            "inference_mode": True,
        }
    )


def _peft_alpha(arm: Arm, alpha: float, rank: int) -> float:
    return alpha * rank if arm.scaling == "constant" else alpha


def _target_modules(base: nn.Module, adapted: list[str]) -> list[str]:
    """The last parts of the adapted modules' names, or their full names if another module's ends in one of these."""
    inside = tuple(f"{name}." for name in adapted)
    others = {name.rpartition(".")[2] for name, _ in base.named_modules() if not f"{name}.".startswith(inside)}
    last = {name.rpartition(".")[2] for name in adapted}
    return sorted(adapted if last & others else last)
