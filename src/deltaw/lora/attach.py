"""Put arms onto a base."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deltaw.errors import UserError
from deltaw.lora.arm import Arm, seed_from
from deltaw.lora.layers import ArmsHead, ArmsLinear, SideBySide
from deltaw.lora.peft_format import matching_key
from deltaw.model.heads import Initialiser
from deltaw.model.names import POSITIONS, widths


def attach(
    base: nn.Module,
    modules: Iterable[str],
    arms: list[Arm],
    heads: Mapping[str, Initialiser | None] | None = None,
    shadows: Sequence[Arm] = (),
) -> None:
    """Freeze `base`, put all factors onto the layers in `modules`, and give each arm a head of its own.

    Args:
        base: the pretrained model, changed in place.
        modules: names of linear layers.
        arms: what to put there.
        heads: modules that each arm trains a copy of, with what draws their weights; None keeps the base's weights.
        shadows: of these arms: see `deltaw.lora.shadows`.

    Raises:
        UserError: as `check_arms` does.
    """
    base.requires_grad_(False)
    modules = list(modules)
    check_arms(base, modules, arms)
    for module in modules:
        replace_module(base, module, ArmsLinear(base.get_submodule(module), module, arms, shadows))
    for module, draw in (heads or {}).items():
        seeds = [seed_from(arm.head_seed, module) for arm in arms]
        replace_module(base, module, ArmsHead(base.get_submodule(module), seeds, draw))
    for attention in base.modules():
        if hasattr(attention, POSITIONS):
            setattr(attention, POSITIONS, partial(_arm_by_arm, attention, getattr(attention, POSITIONS)))


def check_arms(base: nn.Module, modules: Iterable[str], arms: list[Arm]) -> None:
    """Refuse arms that `base` has no place for. Shapes are enough: it may be on the meta device.

    Raises:
        UserError: a rank is above the smaller width of a layer, which no product B A can reach, or a pattern fits no
            module.
    """
    modules = list(modules)
    for arm in arms:
        _check_patterns(arm, modules)
    for module in modules:
        _check_ranks(base.get_submodule(module), module, arms)


def _check_patterns(arm: Arm, modules: list[str]) -> None:
    for key, pattern in (("rank_pattern", arm.rank_pattern), ("alpha_pattern", arm.alpha_pattern)):
        fitting = {matching_key(pattern, module) for module in modules}
        if idle := [name for name in pattern if name not in fitting]:
            raise UserError(
                f"{key} of {arm.name} has {idle[0]!r}, which fits none of the {len(modules)} adapted modules, as "
                f"{modules[0]}, or only those that a pattern before it fits: leave it out, or put it right"
            )


def _check_ranks(layer: nn.Module, module: str, arms: list[Arm]) -> None:
    d_in, d_out = widths(layer)
    limit = min(d_in, d_out)
    if (rank := max((arm.rank_of(module) for arm in arms), default=0)) > limit:
        raise UserError(
            f"rank {rank} is above the width {limit} of {module} ({d_out} × {d_in}): "
            f"choose ranks of at most {limit} there"
        )


def replace_module(base: nn.Module, module: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the module of this name."""
    parent, _, name = module.rpartition(".")
    setattr(base.get_submodule(parent), name, layer)


def _arm_by_arm(
    attention: nn.Module,
    method: Callable[..., Tensor],
    queries: Float[Tensor, "rows_heads tokens head"],
    keys: Float[Tensor, "rows_heads tokens head"],
    *others: object,
) -> Tensor:
    """Run a method of `attention` once per arm, because the inputs of its linear layers are shared by all rows."""
    layers = [layer for layer in attention.children() if isinstance(layer, SideBySide)]
    if not layers:
        return method(queries, keys, *others)
    blocks, parts = layers[0].blocks, []
    for k, (queries_k, keys_k) in enumerate(zip(queries.chunk(blocks), keys.chunk(blocks), strict=True)):
        for layer in layers:
            layer.single = k
        parts.append(method(queries_k, keys_k, *others))
    for layer in layers:
        layer.single = None
    return torch.cat(parts)
