"""Arms: several LoRAs trained side by side on one frozen base (rows side by side along the batch dimension).

The one module that imports PEFT: it says what a snapshot's `adapter_config.json` holds.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import BFloat16, Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear

from deltaw.cli import UserError
from deltaw.head import ArmsHead, Initialiser
from deltaw.parts import whole
from deltaw.projection import POSITIONS, is_conv1d, widths

SCALINGS = ("constant", "alpha/r", "rslora")
CONTROLS = ("shuffled", "random", "frozen_a")


@dataclass(frozen=True)
class Arm:
    """One LoRA on the base.

    Attributes:
        name: unique in a run, and holds everything that tells the run's arms apart; the first A is drawn from it.
        rank: r, rows of A and columns of B, where `rank_pattern` has no other.
        seed: of the order of the training examples; part of the name, so of the first A too.
        alpha: numerator of the scale, where `alpha_pattern` has no other.
        scaling: how the scale follows from alpha and rank: "constant" (alpha), "alpha/r" or "rslora" (alpha/√r).
        lr: peak learning rate.
        control: None, or what is done otherwise than in an arm of the task: "shuffled" and "random" are trained on
            completions that were dealt to other prompts, or that are random tokens; "frozen_a" is trained on the
            task, but A stays at its start and B alone learns.
        rank_pattern: ranks of some modules, by what PEFT matches their names with; the first that fits holds.
        alpha_pattern: the same for alpha.
        dropout: share of what A reads that is zeroed in training, in [0, 1).
        variant: the part of its name that tells of another alpha or scaling than the run's, and of patterns.
    """

    name: str
    rank: int
    seed: int
    alpha: float
    scaling: str
    lr: float
    control: str | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    variant: str = ""

    @property
    def scale(self) -> float:
        """The factor in ΔW = scale · B A, where no pattern has another rank or alpha."""
        return self._scale(self.alpha, self.rank)

    def rank_of(self, module: str) -> int:
        """r of one module."""
        return self.rank_pattern.get(_key(self.rank_pattern, module), self.rank)

    def alpha_of(self, module: str) -> float:
        """Numerator of the scale of one module."""
        return self.alpha_pattern.get(_key(self.alpha_pattern, module), self.alpha)

    def scale_of(self, module: str) -> float:
        """The factor in ΔW = scale · B A of one module."""
        return self._scale(self.alpha_of(module), self.rank_of(module))

    def _scale(self, alpha: float, rank: int) -> float:
        return alpha / {"constant": 1.0, "alpha/r": rank, "rslora": math.sqrt(rank)}[self.scaling]

    @property
    def head_seed(self) -> int:
        """What a classification head of its own is drawn from, where the base brings none."""
        return _seed(self.name, "head")


def _key(pattern: Iterable[str], module: str) -> str:
    """The first key that PEFT finds to fit a module's name; the name itself where none does."""
    if not (keys := list(pattern)):
        return module
    from peft.utils.other import get_pattern_key

    key: str = get_pattern_key(keys, module)
    return key


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
            x = _dropped(x, arm.dropout, _seed(arm.name, self.module, *self.moment))
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
    draw = torch.rand(arm.rank_of(module), width, generator=torch.Generator().manual_seed(_seed(arm.name, module)))
    return (2 * draw - 1) / math.sqrt(width)


def _seed(arm: str, *of: object) -> int:
    key = "\0".join(map(str, (arm, *of)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)


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
        seeds = [_seed(str(arm.head_seed), module) for arm in arms]
        _put(base, module, ArmsHead(base.get_submodule(module), seeds, draw))
    for attention in base.modules():
        if hasattr(attention, POSITIONS):
            setattr(attention, POSITIONS, partial(_arm_by_arm, attention, getattr(attention, POSITIONS)))


def _check_patterns(arm: Arm, modules: list[str]) -> None:
    for key, pattern in (("rank_pattern", arm.rank_pattern), ("alpha_pattern", arm.alpha_pattern)):
        fitting = {_key(pattern, module) for module in modules}
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
    for _, layer in _adapted(base):
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
        for module, layer in _adapted(base):
            _put(base, module, layer.base)
            stack.callback(_put, base, module, layer)
            stack.enter_context(layer.base.register_forward_pre_hook(partial(note, module)))
        run()
    return seen


def parameters_of(base: nn.Module, index: int) -> list[nn.Parameter]:
    """All that the arm at `index` has, a frozen A too, in the order of the base's modules: A, B, A, B, …, its head."""
    factors = [factor for _, layer in _adapted(base) for factor in (layer.A[index], layer.B[index])]
    return factors + [weight for _, head in _heads(base) for weight in head.arms[index].parameters()]


def adapter_tensors(base: nn.Module, index: int) -> dict[str, Tensor]:
    """Factors and head of the arm at `index` under the names that PEFT gives them in `adapter_model.safetensors`.

    All processes have to ask for them together, since each may hold a part alone.
    """
    tensors = {}
    for module, layer in _adapted(base):
        tensors[f"{module}.lora_A.weight"] = layer.A[index]
        tensors[f"{module}.lora_B.weight"] = layer.B[index]
    for module, head in _heads(base):
        tensors |= {f"{module}.{name}": weight for name, weight in head.arms[index].named_parameters()}
    return {f"base_model.model.{name}": whole(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}


def adapter_config(arm: Arm, base: nn.Module, base_path: str, task_type: str) -> dict[str, object]:
    """What PEFT's `adapter_config.json` says of an arm on `base`; loading it gives the arm's own scale and modules.

    PEFT has no constant scale, so that "constant" is written as alpha · r with PEFT's rule alpha/r. A module whose rank
    or alpha is not the arm's is written by its whole name: patterns would depend on an order that JSON need not keep.
    """
    ranks = {f"^{module}": arm.rank_of(module) for module, _ in _adapted(base)}
    alphas = {f"^{module}": _peft_alpha(arm, arm.alpha_of(module), arm.rank_of(module)) for module, _ in _adapted(base)}
    alpha = _peft_alpha(arm, arm.alpha, arm.rank)
    from peft import LoraConfig

    config = LoraConfig(
        r=arm.rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        rank_pattern={module: rank for module, rank in ranks.items() if rank != arm.rank},
        alpha_pattern={module: own for module, own in alphas.items() if own != alpha},
        lora_dropout=arm.dropout,
        use_rslora=arm.scaling == "rslora",
        target_modules=_targets(base),
        fan_in_fan_out=any(is_conv1d(layer.base) for _, layer in _adapted(base)),
        task_type=task_type,
        modules_to_save=sorted(name for name, _ in _heads(base)) or None,
        base_model_name_or_path=base_path,
        inference_mode=True,
    )
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}


def _peft_alpha(arm: Arm, alpha: float, rank: int) -> float:
    return alpha * rank if arm.scaling == "constant" else alpha


def _targets(base: nn.Module) -> list[str]:
    """The last parts of the adapted modules' names; their whole names where another module's ends alike."""
    adapted = [name for name, _ in _adapted(base)]
    inside = tuple(f"{name}." for name in adapted)
    others = {name.rpartition(".")[2] for name, _ in base.named_modules() if not f"{name}.".startswith(inside)}
    last = {name.rpartition(".")[2] for name in adapted}
    return sorted(adapted if last & others else last)


def _put(base: nn.Module, module: str, layer: nn.Module) -> None:
    parent, _, name = module.rpartition(".")
    setattr(base.get_submodule(parent), name, layer)


def _adapted(base: nn.Module) -> list[tuple[str, ArmsLinear]]:
    return [(name, layer) for name, layer in base.named_modules() if isinstance(layer, ArmsLinear)]


def _heads(base: nn.Module) -> list[tuple[str, ArmsHead]]:
    return [(name, head) for name, head in base.named_modules() if isinstance(head, ArmsHead)]
