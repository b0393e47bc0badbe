"""Arms: several LoRAs trained side by side on one frozen base (rows side by side along the batch dimension).

The one module that imports PEFT: it says what a snapshot's `adapter_config.json` holds.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import BFloat16, Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear

from deltaw.errors import UserError
from deltaw.lora.arm import Arm, seed_of
from deltaw.lora.peft_format import matching_key
from deltaw.model.heads import ArmsHead, Initialiser
from deltaw.model.names import POSITIONS, widths


class ArmsLinear(nn.Module):
    """A frozen linear layer (or a Conv1D) with the factors of K arms: block k of the batch sees arm k alone.

        y_k = base(x_k) + scale_k · B_k A_k dropout(x_k)

    The base's product runs once over all rows. A starts as PEFT's default, uniform within ±1/√d_in (Kaiming with
    a = √5), from a seed made of the arm's and the module's names: no arm's start depends on which others are there.
    B starts at zero. The factors are float32 whatever the base's precision. All are trained but the A of an arm whose
    control is "frozen_a".

    Attributes:
        only: the arm that all rows see, while they are one arm's.
        moment: optimiser step, micro-batch of that step and process, from which the masks of dropout are drawn.
    """

    def __init__(self, base: nn.Module, module: str, arms: list[Arm]):
        super().__init__()
        self.base, self.module, self.arms = base, module, arms
        self.only: int | None = None
        self.moment = (0, 0, 0)
        self.scales = [arm.scale_of(module) for arm in arms]
        (width, d_out), device = widths(base), base.get_parameter("weight").device
        self.A = nn.ParameterList(
            nn.Parameter(_start(arm, module, width).to(device), arm.control != "frozen_a") for arm in arms
        )
        self.B = nn.ParameterList([torch.zeros(d_out, arm.rank_of(module), device=device) for arm in arms])

    @property
    def weight(self) -> Tensor:
        """The frozen one, of which some models ask the dtype."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "rows *tokens d_in"]) -> Float[Tensor, "rows *tokens d_out"]:
        y, arms = self.base(x), range(len(self.arms)) if self.only is None else [self.only]
        updates = [self._update(k, x_k) for k, x_k in zip(arms, x.chunk(len(arms)), strict=True)]
        return y + torch.cat(updates).to(y.dtype)

    def _update(self, k: int, x: Float[Tensor, "rows *tokens d_in"]) -> Float[Tensor, "rows *tokens d_out"]:
        arm, x = self.arms[k], x.to(self.A[k].dtype)
        if self.training and arm.dropout:
            x = _dropped(x, arm.dropout, seed_of(arm.name, self.module, *self.moment))
        return linear(linear(x, self.A[k]), self.B[k]) * self.scales[k]


def _dropped(x: Float[Tensor, "rows *tokens d_in"], share: float, seed: int) -> Float[Tensor, "rows *tokens d_in"]:
    """`x` with a share of its values zeroed, and the others larger by what keeps the mean; `seed` alone tells which.

    So a forward pass that is run again, by a resumed run or to save memory, zeroes the same ones. Those of the first
    tokens of all rows are drawn first: on a CPU, longer padding leaves them as they were.
    """
    rows, *tokens, width = x.shape
    generator = torch.Generator(x.device).manual_seed(seed)
    drawn = torch.rand(*tokens, rows, width, generator=generator, dtype=torch.float32, device=x.device)
    return x * (drawn >= share).movedim(-2, 0) / (1 - share)


def _start(arm: Arm, module: str, width: int) -> Float[Tensor, "r d_in"]:
    draw = torch.rand(arm.rank_of(module), width, generator=torch.Generator().manual_seed(seed_of(arm.name, module)))
    return (2 * draw - 1) / math.sqrt(width)


def attach(
    base: nn.Module, modules: Iterable[str], arms: list[Arm], heads: Mapping[str, Initialiser | None] | None = None
) -> None:
    """Freeze `base`, put every arm onto each of its linear layers named in `modules`, and give it its own head.

    Args:
        base: the pretrained model, changed in place.
        modules: names of linear layers.
        arms: what to put there.
        heads: modules of which each arm trains a copy, with what draws their weights; None keeps the base's.

    Raises:
        UserError: a rank is above a layer's smaller width, so that it could not be reached, or a pattern fits none.
    """
    base.requires_grad_(False)
    modules = list(modules)
    for arm in arms:
        _check_patterns(arm, modules)
    for module in modules:
        layer = base.get_submodule(module)
        d_in, d_out = widths(layer)
        limit = min(d_in, d_out)
        if above := [rank for rank in (arm.rank_of(module) for arm in arms) if rank > limit]:
            raise UserError(
                f"rank {max(above)} is above the width {limit} of {module} "
                f"({d_out} × {d_in}): choose ranks of at most {limit} there"
            )
        _put(base, module, ArmsLinear(layer, module, arms))
    for module, draw in (heads or {}).items():
        seeds = [seed_of(str(arm.head_seed), module) for arm in arms]
        _put(base, module, ArmsHead(base.get_submodule(module), seeds, draw))
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


def set_moment(base: nn.Module, step: int, micro_batch: int, process: int) -> None:
    """Say which forward pass of the training comes next: the masks of dropout follow from that, and nothing is kept.

    Args:
        base: the model, with arms.
        step: optimiser steps taken before.
        micro_batch: how many of this step's came before.
        process: the rank of this one.
    """
    for _, layer in adapted_layers(base):
        layer.moment = (step, micro_batch, process)


def _arm_by_arm(
    attention: nn.Module,
    method: Callable[..., Tensor],
    queries: Float[Tensor, "rows_heads tokens head"],
    keys: Float[Tensor, "rows_heads tokens head"],
    *others: object,
) -> Tensor:
    """What a method of `attention` gives, one arm after another: in it, linear layers read what all rows share."""
    layers = [layer for layer in attention.children() if isinstance(layer, ArmsLinear)]
    if not layers:
        return method(queries, keys, *others)
    arms, parts = len(layers[0].scales), []
    for k, (queries_k, keys_k) in enumerate(zip(queries.chunk(arms), keys.chunk(arms), strict=True)):
        for layer in layers:
            layer.only = k
        parts.append(method(queries_k, keys_k, *others))
    for layer in layers:
        layer.only = None
    return torch.cat(parts)


@torch.no_grad()
def inputs_of_base(
    base: nn.Module, run: Callable[[], object], chosen: Iterable[Bool[Tensor, "rows _"]]
) -> dict[str, BFloat16[Tensor, "_ d_in"]]:
    """What each adapted layer reads at the chosen tokens in the plain base, by the layer's name.

    The arms are taken off for as long, so that it is the same before and after they have learned.

    Args:
        base: the model, with arms.
        run: calls it on some rows.
        chosen: which of their tokens, for each sequence that layers read; their lengths tell them apart.
    """
    masks = {mask.numel(): mask.flatten() for mask in chosen}
    seen: dict[str, Tensor] = {}

    def note(module: str, layer: nn.Module, args: tuple[Tensor]) -> None:
        if module not in seen:  # a second call, as DeBERTa's for positions, reads no tokens
            tokens = args[0].flatten(0, -2)
            seen[module] = tokens[masks[len(tokens)]].to("cpu", torch.bfloat16)

    with ExitStack() as stack:
        for module, layer in adapted_layers(base):
            _put(base, module, layer.base)
            stack.callback(_put, base, module, layer)
            stack.enter_context(layer.base.register_forward_pre_hook(partial(note, module)))
        run()
    return seen


def parameters_of(base: nn.Module, index: int) -> list[nn.Parameter]:
    """All that the arm at `index` has, a frozen A too, in the order of the base's modules: A, B, A, B, …, its head."""
    factors = [factor for _, layer in adapted_layers(base) for factor in (layer.A[index], layer.B[index])]
    return factors + [weight for _, head in arm_heads(base) for weight in head.arms[index].parameters()]


def _put(base: nn.Module, module: str, layer: nn.Module) -> None:
    parent, _, name = module.rpartition(".")
    setattr(base.get_submodule(parent), name, layer)


def adapted_layers(base: nn.Module) -> list[tuple[str, ArmsLinear]]:
    return [(name, layer) for name, layer in base.named_modules() if isinstance(layer, ArmsLinear)]


def arm_heads(base: nn.Module) -> list[tuple[str, ArmsHead]]:
    return [(name, head) for name, head in base.named_modules() if isinstance(head, ArmsHead)]
