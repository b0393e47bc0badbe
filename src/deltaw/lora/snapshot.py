"""An arm as PEFT saves it: its tensors by PEFT's names, and its `adapter_config.json`."""

from torch import Tensor, nn

from deltaw.lora.arm import Arm
from deltaw.lora.layers import adapted_layers, arm_heads
from deltaw.lora.peft_format import lora_config
from deltaw.lora.sharded import whole
from deltaw.model.names import is_conv1d


def adapter_tensors(base: nn.Module, index: int) -> dict[str, Tensor]:
    """Factors and head of the arm at `index` under the names that PEFT gives them in `adapter_model.safetensors`.

    All processes have to ask for them together, since each may hold a part alone.
    """
    tensors = {}
    for module, layer in adapted_layers(base):
        tensors[f"{module}.lora_A.weight"] = layer.A[index]
        tensors[f"{module}.lora_B.weight"] = layer.B[index]
    for module, head in arm_heads(base):
        tensors |= {f"{module}.{name}": weight for name, weight in head.arms[index].named_parameters()}
    return {f"base_model.model.{name}": whole(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}


def adapter_config(arm: Arm, base: nn.Module, base_path: str, task_type: str) -> dict[str, object]:
    """What PEFT's `adapter_config.json` says of an arm on `base`; loading it gives the arm's own scale and modules.

    PEFT has no constant scale, so that "constant" is written as alpha · r with PEFT's rule alpha/r. A module whose rank
    or alpha is not the arm's is written by its whole name: patterns would depend on an order that JSON need not keep.
    """
    ranks = {f"^{module}": arm.rank_of(module) for module, _ in adapted_layers(base)}
    alphas = {
        f"^{module}": _peft_alpha(arm, arm.alpha_of(module), arm.rank_of(module)) for module, _ in adapted_layers(base)
    }
    alpha = _peft_alpha(arm, arm.alpha, arm.rank)
    return lora_config(
        r=arm.rank,
        lora_alpha=alpha,
        rank_pattern={module: rank for module, rank in ranks.items() if rank != arm.rank},
        alpha_pattern={module: own for module, own in alphas.items() if own != alpha},
        lora_dropout=arm.dropout,
        use_rslora=arm.scaling == "rslora",
        target_modules=_targets(base),
        fan_in_fan_out=any(is_conv1d(layer.base) for _, layer in adapted_layers(base)),
        task_type=task_type,
        modules_to_save=sorted(name for name, _ in arm_heads(base)) or None,
        base_model_name_or_path=base_path,
        inference_mode=True,
    )


def _peft_alpha(arm: Arm, alpha: float, rank: int) -> float:
    return alpha * rank if arm.scaling == "constant" else alpha


def _targets(base: nn.Module) -> list[str]:
    """The last parts of the adapted modules' names; their whole names where another module's ends alike."""
    adapted = [name for name, _ in adapted_layers(base)]
    inside = tuple(f"{name}." for name in adapted)
    others = {name.rpartition(".")[2] for name, _ in base.named_modules() if not f"{name}.".startswith(inside)}
    last = {name.rpartition(".")[2] for name in adapted}
    return sorted(adapted if last & others else last)
