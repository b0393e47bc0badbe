"""The layers that hold arms. Rows of a batch lie arm by arm: block k of the rows belongs to arm k."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deltaw.lora.arm import Arm, seed_from
from deltaw.lora.updates import Factors, add_updates
from deltaw.model.heads import Initialiser
from deltaw.model.names import widths
from deltaw.run.record import name_of_shadow


@dataclass(frozen=True)
class Moment:
    """A forward pass of the training.

    Attributes:
        step: optimiser steps taken before; it seeds the masks of dropout, as the next two do.
        micro_batch: micro-batches of this step taken before.
        process: the rank of this process.
        signs: +1 or −1 for each row, or each token of a packed row, and each shadow of the row's arm; 0 for padding and
            where an arm has no shadow. None without shadows.
    """

    step: int = 0
    micro_batch: int = 0
    process: int = 0
    signs: Int[Tensor, "rows _ shadows"] | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        """Step, micro-batch and process."""
        return self.step, self.micro_batch, self.process


class SideBySide(nn.Module):
    """A frozen linear layer (or a Conv1D) whose rows lie in K blocks, each with factors of its own.

        y_k = base(x_k) + scale_k · B_k A_k x_k

    The product with the base runs once over all rows.

    Args:
        base: the frozen layer.
        blocks: K.

    Attributes:
        single: the index of the block that all rows belong to, or None if they belong to all blocks.
    """

    def __init__(self, base: nn.Module, blocks: int):
        super().__init__()
        self.base, self.blocks = base, blocks
        self.single: int | None = None

    @property
    def weight(self) -> Tensor:
        """The base's, because some models ask for its dtype."""
        return self.base.get_parameter("weight")

    @property
    def present(self) -> Sequence[int]:
        """The blocks that the rows belong to."""
        return range(self.blocks) if self.single is None else [self.single]


class ArmsLinear(SideBySide):
    """A frozen linear layer (or a Conv1D) with the factors of K arms and their shadows; block k of the rows sees arm k.

        y_k = base(x_k) + scale_k · B_k A_k dropout(x_k)

    A starts as PEFT's default, uniform within ±1/√d_in (Kaiming with a = √5), from a seed made of the names of arm and
    module, so that an arm's start does not depend on other arms. B starts at zero. The factors are float32 whatever
    the base's precision, and trained, except the A of an arm whose control is "frozen_a".

    Args:
        base: the frozen layer.
        module: its name in the model.
        arms: what the rows belong to.
        shadows: of these arms; they learn in training mode, once `signs` are there.

    Attributes:
        A, B: the factors of the arms, then of the shadows.
        moment: the forward pass of the training that comes next.
    """

    def __init__(self, base: nn.Module, module: str, arms: list[Arm], shadows: Sequence[Arm] = ()):
        super().__init__(base, len(arms))
        self.module, self.arms = module, arms
        self.moment = Moment()
        learners = [*arms, *shadows]
        self.scales = [arm.scale_of(module) for arm in arms]
        (width, d_out), device = widths(base), base.get_parameter("weight").device
        self.A = nn.ParameterList(
            nn.Parameter(_start(arm, module, width).to(device), arm.control != "frozen_a") for arm in learners
        )
        self.B = nn.ParameterList([torch.zeros(d_out, arm.rank_of(module), device=device) for arm in learners])
        self._shadows = [  # of each arm, by their places among the learners
            [k for k, one in enumerate(shadows, len(arms)) if one.name == name_of_shadow(arm.name, one.shadow)]
            for arm in arms
        ]

    def forward(self, x: Float[Tensor, "rows *tokens d_in"]) -> Float[Tensor, "rows *tokens d_out"]:
        # A single arm reads what all its examples share, so that no example's sign applies.
        signs = self.moment.signs if self.training and self.single is None else None
        read = self._dropped(x) if self.training and any(arm.dropout for arm in self.arms) else x
        return add_updates(self.base(x), read, [self._factors(k) for k in self.present], signs)

    def _factors(self, k: int) -> Factors:
        of_shadows = [Factors(self.A[place], self.B[place], self.scales[k]) for place in self._shadows[k]]
        return Factors(self.A[k], self.B[k], self.scales[k], of_shadows)

    @torch.compiler.disable  # a compiled layer would be compiled again for each seed
    def _dropped(self, x: Float[Tensor, "rows *tokens d_in"]) -> Float[Tensor, "rows *tokens d_in"]:
        """`x` behind the dropout of each arm."""
        arms = [self.arms[k] for k in self.present]
        seeds = [seed_from(arm.name, self.module, *self.moment.place) for arm in arms]
        parts = zip(x.to(self.A[0].dtype).chunk(len(arms)), arms, seeds, strict=True)
        return torch.cat([_dropout(x_k, arm.dropout, seed) if arm.dropout else x_k for x_k, arm, seed in parts])


class ArmsHead(nn.Module):
    """A copy of a classifier's head for each of K arms, trained in float32; block k of the rows sees copy k alone.

    Args:
        module: what to copy.
        seeds: one for each arm, from which its copy's weights are drawn.
        draw: draws the weights; None keeps those of `module`.
    """

    def __init__(self, module: nn.Module, seeds: list[int], draw: Initialiser | None):
        super().__init__()
        self.arms = nn.ModuleList(deepcopy(module).float().requires_grad_(True) for _ in seeds)
        for copy, seed in zip(self.arms, seeds, strict=True):
            if draw:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    copy.apply(draw)

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        # Rows that K does not divide occur only in passes that ignore the head's output.
        blocks = zip(x.chunk(len(self.arms)), self.arms, strict=False)
        return torch.cat([copy(x_k.to(next(copy.parameters()).dtype)) for x_k, copy in blocks])


def _start(arm: Arm, module: str, width: int) -> Float[Tensor, "r d_in"]:
    draw = torch.rand(arm.rank_of(module), width, generator=torch.Generator().manual_seed(seed_from(arm.name, module)))
    return (2 * draw - 1) / math.sqrt(width)


def _dropout(x: Float[Tensor, "rows *tokens d_in"], share: float, seed: int) -> Float[Tensor, "rows *tokens d_in"]:
    """`x` with a share of its values zeroed and the others scaled to keep the mean; `seed` alone decides which.

    So a forward pass that runs again, in a resumed run or to save memory, zeroes the same values. The draws go token
    by token over all rows: on a CPU, longer padding leaves the draws of the first tokens as they were.
    """
    rows, *tokens, width = x.shape
    # A plan runs on the meta device, which has no generator and draws nothing.
    generator = torch.Generator("cpu" if x.is_meta else x.device).manual_seed(seed)
    draws = torch.rand(*tokens, rows, width, generator=generator, dtype=torch.float32, device=x.device)
    return x * (draws >= share).movedim(-2, 0) / (1 - share)


def adapted_layers(base: nn.Module) -> list[tuple[str, ArmsLinear]]:
    """The layers of `base` that hold factors, after their names, in the order of its modules."""
    return [(name, layer) for name, layer in base.named_modules() if isinstance(layer, ArmsLinear)]


def arm_heads(base: nn.Module) -> list[tuple[str, ArmsHead]]:
    """The heads of `base` that hold a copy for each arm, after their names."""
    return [(name, head) for name, head in base.named_modules() if isinstance(head, ArmsHead)]


def parameters_of(base: nn.Module, index: int) -> list[nn.Parameter]:
    """All parameters of one arm, a frozen A too, in the order of the base's modules: A, B, …, then heads.

    `index` counts the arms, then their shadows, which have no head.
    """
    factors = [factor for _, layer in adapted_layers(base) for factor in (layer.A[index], layer.B[index])]
    heads = [copy for _, head in arm_heads(base) for copy in head.arms[index : index + 1]]
    return factors + [weight for head in heads for weight in head.parameters()]


def set_moment(base: nn.Module, moment: Moment) -> None:
    """Tell all layers which forward pass of the training comes next."""
    for _, layer in adapted_layers(base):
        layer.moment = moment
