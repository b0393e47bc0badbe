"""Put arms onto a base, and take them off to see what the plain base reads."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import BFloat16, Bool, Float
from torch import Tensor, nn

from deltaw.errors import UserError
from deltaw.lora.arm import Arm, seed_from
from deltaw.lora.layers import ArmsHead, ArmsLinear, adapted_layers
from deltaw.lora.peft_format import matching_key
from deltaw.model.heads import Initialiser
from deltaw.model.names import POSITIONS, widths


def attach(
    base: nn.Module, modules: Iterable[str], arms: list[Arm], heads: Mapping[str, Initialiser | None] | None = None
) -> None:
    """Freeze `base`, put the factors of all arms onto the layers in `modules`, and give each arm a head of its own.

    Args:
        base: the pretrained model, changed in place.
        modules: names of linear layers.
        arms: what to put there.
        heads: modules that each arm trains a copy of, with what draws their weights; None keeps the base's weights.

    Raises:
        UserError: a rank is above the smaller width of a layer, which no product B A can reach, or a pattern fits no
            module.
    """
    base.requires_grad_(False)
    modules = list(modules)
    for arm in arms:
        _check_patterns(arm, modules)
    for module in modules:
        layer = base.get_submodule(module)
        _check_ranks(layer, module, arms)
        _replace(base, module, ArmsLinear(layer, module, arms))
    for module, draw in (heads or {}).items():
        seeds = [seed_from(arm.head_seed, module) for arm in arms]
        _replace(base, module, ArmsHead(base.get_submodule(module), seeds, draw))
    for attention in base.modules():
        if hasattr(attention, POSITIONS):
            setattr(attention, POSITIONS, partial(_arm_by_arm, attention, getattr(attention, POSITIONS)))


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


def _replace(base: nn.Module, module: str, layer: nn.Module) -> None:
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
    layers = [layer for layer in attention.children() if isinstance(layer, ArmsLinear)]
    if not layers:
        return method(queries, keys, *others)
    arms, parts = len(layers[0].scales), []
    for k, (queries_k, keys_k) in enumerate(zip(queries.chunk(arms), keys.chunk(arms), strict=True)):
        for layer in layers:
            layer.single_arm = k
        parts.append(method(queries_k, keys_k, *others))
    for layer in layers:
        layer.single_arm = None
    return torch.cat(parts)


@torch.no_grad()
def inputs_of_base(
    base: nn.Module, run: Callable[[], object], chosen: Iterable[Bool[Tensor, "rows _"]]
) -> dict[str, BFloat16[Tensor, "_ d_in"]]:
    """The inputs of each adapted layer at the chosen tokens in the plain base, by the layer's name.

    The arms are taken off meanwhile, so that the inputs are the same before and after training.

    Args:
        base: the model, with arms.
        run: calls `base` on some rows.
        chosen: masks of the tokens to keep, one for each sequence that layers read; their lengths tell them apart.
    """
    masks = {mask.numel(): mask.flatten() for mask in chosen}
    inputs: dict[str, Tensor] = {}

    def keep(module: str, layer: nn.Module, args: tuple[Tensor]) -> None:
        if module not in inputs:  # a second call, as DeBERTa's for positions, reads no tokens
            tokens = args[0].flatten(0, -2)
            inputs[module] = tokens[masks[len(tokens)]].to("cpu", torch.bfloat16)

    with ExitStack() as stack:
        for module, layer in adapted_layers(base):
            _replace(base, module, layer.base)
            stack.callback(_replace, base, module, layer)
            stack.enter_context(layer.base.register_forward_pre_hook(partial(keep, module)))
        run()
    return inputs
