"""Arms: several LoRAs trained side by side on one frozen base (rows side by side along the batch dimension).

The one module that imports PEFT: it says what a snapshot's `adapter_config.json` holds.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from jaxtyping import BFloat16, Bool, Float
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.functional import linear

from deltaw.cli import UserError
from deltaw.engine import whole
from deltaw.head import ArmsHead, Initialiser
from deltaw.projection import POSITIONS, is_conv1d, widths

SCALINGS = ("constant", "alpha/r", "rslora")
CONTROLS = ("shuffled", "random", "frozen_a")


@dataclass(frozen=True)
class Arm:
    """One LoRA on the base.

    Attributes:
        name: unique in a run, and holds everything that tells the run's arms apart; the first A is drawn from it.
        rank: r, rows of A and columns of B.
        seed: of the order of the training examples; part of the name, so of the first A too.
        alpha: numerator of the scale.
        scaling: how the scale follows from alpha and rank: "constant" (alpha), "alpha/r" or "rslora" (alpha/√r).
        lr: peak learning rate.
        control: None, or what is done otherwise than in an arm of the task: "shuffled" and "random" are trained on
            completions that were dealt to other prompts, or that are random tokens; "frozen_a" is trained on the
            task, but A stays at its start and B alone learns.
    """

    name: str
    rank: int
    seed: int
    alpha: float
    scaling: str
    lr: float
    control: str | None = None

    @property
    def scale(self) -> float:
        """The factor in ΔW = scale · B A."""
        divisor = {"constant": 1.0, "alpha/r": self.rank, "rslora": math.sqrt(self.rank)}
        return self.alpha / divisor[self.scaling]

    @property
    def head_seed(self) -> int:
        """What a classification head of its own is drawn from, where the base brings none."""
        return _seed(self.name, "head")


def arms_from(
    ranks: Iterable[int],
    seeds: Iterable[int],
    lrs: Iterable[float] | None,
    controls: Iterable[str],
    alpha: float,
    scaling: str,
    default_lr: float,
) -> list[Arm]:
    """Every combination of rank, seed and learning rate, as the task's own arm and as each control.

    No `lrs` means `default_lr`; a learning rate other than that is part of the name.

    Raises:
        UserError: a rank below 1, an unknown scaling or control, an alpha or learning rate that is not above 0, or
            none or two equal arms.
    """
    if scaling not in SCALINGS:
        raise UserError(f"arms.scaling={scaling} is not one of {', '.join(SCALINGS)}")
    if not 0 < alpha < math.inf:
        raise UserError(f"arms.alpha={alpha} makes every ΔW 0 or infinite: give a number above 0")
    arms = []
    for control, seed, rank, lr in product([None, *controls], seeds, ranks, lrs or [default_lr]):
        if rank < 1:
            raise UserError(f"arms.ranks has {rank}: a rank is at least 1")
        if not 0 < lr < math.inf:
            raise UserError(f"a learning rate of {lr} trains nothing: optim.lr and arms.lrs must be finite, above 0")
        if control not in (None, *CONTROLS):
            raise UserError(f"arms.controls has {control!r}: choose from {', '.join(CONTROLS)}")
        parts = [f"r{rank}", f"s{seed}", f"lr{lr:g}" if lr != default_lr else "", control or ""]
        arms.append(Arm("-".join(filter(None, parts)), rank, seed, alpha, scaling, lr, control))
    names = [arm.name for arm in arms]
    if not arms or len(set(names)) < len(names):
        raise UserError(
            f"the arms {names} are none or not all different: give arms.ranks, arms.seeds and arms.lrs at least "
            "one value each, every value once"
        )
    return arms


class ArmsLinear(nn.Module):
    """A frozen linear layer (or a Conv1D) with the factors of K arms: block k of the batch sees arm k alone.

        y_k = base(x_k) + scale_k · B_k A_k x_k

    The base's product runs once over all rows. A starts as PEFT's default, uniform within ±1/√d_in (Kaiming with
    a = √5), from a seed made of the arm's and the module's names: no arm's start depends on which others are there.
    B starts at zero. The factors are float32 whatever the base's precision. All are trained but the A of an arm whose
    control is "frozen_a".
    """

    def __init__(self, base: nn.Module, module: str, arms: list[Arm]):
        super().__init__()
        self.base = base
        self.only: int | None = None  # the arm that all rows see, while they are one arm's
        self.scales = [arm.scale for arm in arms]
        (width, d_out), device = widths(base), base.get_parameter("weight").device
        self.A = nn.ParameterList(
            nn.Parameter(_start(arm, module, width).to(device), arm.control != "frozen_a") for arm in arms
        )
        self.B = nn.ParameterList([torch.zeros(d_out, arm.rank, device=device) for arm in arms])

    @property
    def weight(self) -> Tensor:
        """The frozen one, of which some models ask the dtype."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "rows *tokens d_in"]) -> Float[Tensor, "rows *tokens d_out"]:
        y, arms = self.base(x), list(zip(self.A, self.B, self.scales, strict=True))
        arms = arms if self.only is None else [arms[self.only]]
        blocks = zip(x.chunk(len(arms)), arms, strict=True)
        updates = [linear(linear(x_k.to(A.dtype), A), B) * scale for x_k, (A, B, scale) in blocks]
        return y + torch.cat(updates).to(y.dtype)


def _start(arm: Arm, module: str, width: int) -> Float[Tensor, "r d_in"]:
    draw = torch.rand(arm.rank, width, generator=torch.Generator().manual_seed(_seed(arm.name, module)))
    return (2 * draw - 1) / math.sqrt(width)


def _seed(arm: str, module: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{arm}\0{module}".encode()).digest()[:8], "big", signed=True)


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
        UserError: a rank is above a layer's smaller width, so that it could not be reached.
    """
    base.requires_grad_(False)
    for module in modules:
        layer = base.get_submodule(module)
        d_in, d_out = widths(layer)
        limit = min(d_in, d_out)
        if above := [arm.rank for arm in arms if arm.rank > limit]:
            raise UserError(
                f"rank {max(above)} is above the width {limit} of {module} "
                f"({d_out} × {d_in}): choose arms.ranks of at most {limit}"
            )
        _put(base, module, ArmsLinear(layer, module, arms))
    for module, draw in (heads or {}).items():
        seeds = [_seed(str(arm.head_seed), module) for arm in arms]
        _put(base, module, ArmsHead(base.get_submodule(module), seeds, draw))
    for attention in base.modules():
        if hasattr(attention, POSITIONS):
            setattr(attention, POSITIONS, partial(_arm_by_arm, attention, getattr(attention, POSITIONS)))


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

    PEFT has no constant scale, so that "constant" is written as alpha · r with PEFT's rule alpha/r.
    """
    config = LoraConfig(
        r=arm.rank,
        lora_alpha=arm.alpha * arm.rank if arm.scaling == "constant" else arm.alpha,  # type: ignore[arg-type]
        use_rslora=arm.scaling == "rslora",
        target_modules=_targets(base),
        fan_in_fan_out=any(is_conv1d(layer.base) for _, layer in _adapted(base)),
        task_type=task_type,
        modules_to_save=sorted(name for name, _ in _heads(base)) or None,
        base_model_name_or_path=base_path,
        inference_mode=True,
    )
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}


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
