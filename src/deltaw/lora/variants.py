"""Variants of arms on the base, in place of the arms: as they were after a step, cut to a lower rank, or in part."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from deltaw.lora.arm import Arm
from deltaw.lora.attach import replace_module
from deltaw.lora.layers import ArmsHead, SideBySide, adapted_layers, arm_heads
from deltaw.lora.snapshot import stored_tensors
from deltaw.lora.updates import Factors, add_updates
from deltaw.maths.cut import cut


@dataclass(frozen=True)
class Variant:
    """What stands in place of one arm.

    Attributes:
        factors: by the module's name; a module that is missing has no ΔW.
        heads: the weights of the arm's heads, by their names in the base.
    """

    factors: Mapping[str, Factors]
    heads: Mapping[str, Tensor]


def variant_of(
    arm: Arm, modules: Sequence[str], snapshot: Path, k: int | None = None, without: Sequence[str] = ()
) -> Variant:
    """A variant of an arm.

    Args:
        arm: trained.
        modules: names of its adapted layers.
        snapshot: the folder of its factors.
        k: the rank to which ΔW is cut in every module; None to leave it. The factors are then finite.
        without: names of the modules that get no ΔW.

    Raises:
        UserError: the snapshot cannot be read.
    """
    tensors = stored_tensors(snapshot)
    factors = {}
    for module in modules:
        if module not in without:
            A, B = (tensors[f"{module}.lora_{letter}.weight"] for letter in "AB")
            factors[module] = Factors(*(cut(A, B, k) if k else (A, B)), arm.scale_of(module))
    return Variant(factors, {name: tensor for name, tensor in tensors.items() if ".lora_" not in name})


class VariantsLinear(SideBySide):
    """A frozen linear layer with the factors of K variants; no product where a variant has none.

        y_k = base(x_k) + scale_k · B_k A_k x_k

    Args:
        base: the frozen layer.
        factors: of each variant; None for a variant without ΔW here.
    """

    def __init__(self, base: nn.Module, factors: Sequence[Factors | None]):
        super().__init__(base, len(factors))
        device = self.weight.device
        self.factors = [one and Factors(one.A.to(device), one.B.to(device), one.scale) for one in factors]

    @torch.compiler.disable  # a compiled layer would be compiled again for each group of variants
    def forward(self, x: Float[Tensor, "rows *tokens d_in"]) -> Float[Tensor, "rows *tokens d_out"]:
        return add_updates(self.base(x), x, [self.factors[k] for k in self.present])


class VariantsHead(nn.Module):
    """A classifier's head with the weights of K variants; block k of the rows sees those of variant k alone.

    Args:
        head: of the arms.
        weights: of each variant, by their names in the head.
    """

    def __init__(self, head: ArmsHead, weights: Sequence[Mapping[str, Tensor]]):
        super().__init__()
        self.module = head.arms[0]
        device = next(self.module.parameters()).device
        self.weights = [{name: weight.to(device) for name, weight in of_one.items()} for of_one in weights]

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        blocks = zip(x.chunk(len(self.weights)), self.weights, strict=False)  # as in ArmsHead
        outputs = [functional_call(self.module, own, x_k.to(next(iter(own.values())).dtype)) for x_k, own in blocks]
        return torch.cat(outputs)


@contextmanager
def in_place_of_arms(base: nn.Module, variants: Sequence[Variant]) -> Iterator[None]:
    """Put variants onto `base` side by side; at the end of the block the arms are back.

    Args:
        base: with arms.
        variants: block k of the rows belongs to the k-th.
    """
    before: dict[str, nn.Module] = dict([*adapted_layers(base), *arm_heads(base)])
    try:
        for name, module in before.items():
            if isinstance(module, ArmsHead):
                weights = [_below(name, variant.heads) for variant in variants]
                replace_module(base, name, VariantsHead(module, weights))
            else:
                factors = [variant.factors.get(name) for variant in variants]
                replace_module(base, name, VariantsLinear(module.get_submodule("base"), factors))
        yield
    finally:
        for name, module in before.items():
            replace_module(base, name, module)


def _below(module: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a module's, by the rest of the names."""
    prefix = f"{module}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
