"""What a training step of a model takes, counted on the meta device: shapes go through it and no numbers.

So it needs neither weights nor memory, and what is counted is what is trained: the same model, arms and loss.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention, softmax
from torch.overrides import TorchFunctionMode

from deltaw.data.example import Example
from deltaw.lora.arm import Arm
from deltaw.lora.layers import parameters_of
from deltaw.model.names import block_of, is_conv1d
from deltaw.plan.arithmetic import Facts
from deltaw.training.objectives import Causal, Objective, summed

# Products, with how many tensors they are given before the two factors.
_PRODUCTS: dict[Any, int] = {
    linear: 0,
    torch.matmul: 0,
    Tensor.matmul: 0,
    Tensor.__matmul__: 0,
    torch.bmm: 0,
    Tensor.bmm: 0,
    torch.addmm: 1,
    torch.nn.functional.grouped_mm: 0,  # of experts
    torch.baddbmm: 1,
    Tensor.baddbmm: 1,
}
# What models ask of values: whether a mask is plain throughout, and whether padding is in a row.
_ANSWERS = {Tensor.__bool__: True, Tensor.__contains__: False}
_IN_FLOAT32 = (layer_norm, softmax, torch.softmax, Tensor.softmax)  # under autocast, of what keeps its input


class DryRun(TorchFunctionMode):
    """Torch on the meta device: draws nothing, and counts what is multiplied and what is kept for the backward pass.

    Rows are as long as each other: their masks are plain, and have no padding.

    Args:
        weights: whose the storage of a weight is, "base" or "arms".
        autocast: compute in bfloat16 as a GPU does under `bf16-mixed`; torch has no autocast of the meta device.

    Attributes:
        place: the layer that is at work, "loss", or "" outside of both.
        flops: of products, forward, by place and by whose they are: "base", "arms" or "attention".
        kept: storages other than weights kept for the backward pass, with the place that was first to keep them.
        read: storages that layers were called with.
    """

    def __init__(self, weights: Mapping[int, str] | None = None, autocast: bool = False):
        super().__init__()
        self.weights, self.autocast = weights or {}, autocast
        self.place = ""
        self.flops: Counter[tuple[str, str]] = Counter()
        self.kept: dict[int, tuple[torch.UntypedStorage, str]] = {}
        self.read: dict[int, torch.UntypedStorage] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ANSWERS and args[0].is_meta:
            return _ANSWERS[func]
        if func is torch.rand:
            return torch.rand(*args, device="meta")
        if func is scaled_dot_product_attention:
            return self._attention(*self._cast(args[:3], torch.bfloat16), *args[3:], **kwargs)
        if func in _IN_FLOAT32:
            args = self._cast(args, torch.float32)
        if func not in _PRODUCTS:
            return func(*args, **kwargs)
        factors = [given for given in (*args, *kwargs.values()) if isinstance(given, Tensor)][_PRODUCTS[func] :]
        if func is linear:  # a bias keeps nothing, and takes a millisecond here
            args, kwargs = args[:2], {name: given for name, given in kwargs.items() if name != "bias"}
        out: Tensor = func(*self._cast(args, torch.bfloat16), **kwargs)
        whose = self.weights.get(_storage(factors[1]), "attention")
        self.flops[self.place, whose] += 2 * out.numel() * factors[0].shape[-1]
        return out

    def _cast(self, args: Iterable[Any], dtype: torch.dtype) -> list[Any]:
        floats = (torch.float32, torch.bfloat16)
        cast = [self.autocast and isinstance(given, Tensor) and given.dtype in floats for given in args]
        return [given.to(dtype) if wanted else given for given, wanted in zip(args, cast, strict=True)]

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """What the fast kernels of every device are to autograd: they keep q, k, v, their output and a sum a query.

        They are not taken where k has fewer heads than q and is not said to: then the probabilities are kept.
        """
        self.flops[self.place, "attention"] += 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            attn_mask = attn_mask.to(q.dtype)  # as SDPA does
        if q.shape[1] != k.shape[1] and not enable_gqa:
            return scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
        fast = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out: Tensor = fast(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
        return out

    def keep(self, tensor: Tensor) -> Tensor:
        """Note what autograd keeps; for `saved_tensors_hooks`."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.kept.setdefault(storage._cdata, (storage, self.place))
        return tensor

    def enter(self, place: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Note that a layer is at work, and what it reads; for a pre-hook."""
        self.place = place
        storages = [given.untyped_storage() for given in args if isinstance(given, Tensor)]
        self.read |= {storage._cdata: storage for storage in storages}

    def leave(self, place: str, *_: object) -> None:
        """Note where the work goes on behind a module; for a hook."""
        self.place = place


def count(
    base: nn.Module, arms: list[Arm], objective: Objective, prompt: int, completion: int, autocast: bool = False
) -> Facts:
    """Run the loss of one row of every arm through a base on the meta device, and count.

    Args:
        base: with the arms on it.
        arms: all of them.
        objective: makes a loss of what the base gives.
        prompt: tokens of a row that are read and not learnt.
        completion: tokens or labels of a row that are learnt.
        autocast: whether training is under `bf16-mixed`.
    """
    row = Example([0] * prompt, [0] * completion, [0] * completion)
    batch = {name: tensor.to("meta") for name, tensor in objective.collate([row] * len(arms)).items()}
    of_arms = {arm.name: parameters_of(base, k) for k, arm in enumerate(arms)}
    weights = {_storage(tensor): "base" for tensor in (*base.parameters(), *base.buffers())}
    weights |= {_storage(weight): "arms" for of_arm in of_arms.values() for weight in of_arm}
    names = dict.fromkeys(block_of(name) for name, _ in base.named_modules())
    layers = {name: base.get_submodule(name) for name in names if name}
    layers = {name: layer for name, layer in layers.items() if _frozen(layer, weights)}  # and no arm's head
    dry = _forward(base, objective, layers, batch, DryRun(weights, autocast))
    tokens = sum(mask.shape[1] for mask in objective.read(batch))
    seen = 0.5 if isinstance(objective, Causal) else 1.0  # of a row's tokens by each of them, on average
    flops = {key: times * (seen if key[1] == "attention" else 1) for key, times in dry.flops.items()}
    base_flops, attention_flops, arms_flops = (
        sum(times for (_, name), times in flops.items() if name == whose) for whose in ("base", "attention", "arms")
    )
    frozen = [weight for weight in base.parameters() if weights[_storage(weight)] == "base"]
    trained = [weight for of_arm in of_arms.values() for weight in of_arm]
    sizes = [_frozen(layer, weights) for layer in layers.values()]
    packable = [weight for layer in layers.values() for weight in _matrices(layer)]
    return Facts(
        parameters=sum(weight.numel() for weight in frozen),
        multiplied=base_flops / (2 * tokens * len(arms)),
        packable=sum(weight.numel() for weight in packable),
        weight=packable[0].element_size(),
        arms={name: sum(weight.numel() for weight in of_arm) for name, of_arm in of_arms.items()},
        layers=len(layers),
        tokens=tokens,
        base=_frozen(base, weights),
        in_layers=sum(sizes),
        largest=max(sizes),
        factors=sum(weight.nbytes for weight in trained),
        gradients=sum(weight.nbytes for weight in trained if weight.requires_grad),
        base_flops=base_flops,
        attention_flops=attention_flops,
        arms_flops=arms_flops,
        layers_flops=sum(times for (place, _), times in flops.items() if place in layers),
        **_activations(dry, layers),
    )


def _forward(
    base: nn.Module, objective: Objective, layers: Mapping[str, nn.Module], batch: dict[str, Tensor], dry: DryRun
) -> DryRun:
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(partial(dry.enter, name)).remove)
            stack.callback(layer.register_forward_hook(partial(dry.leave, "")).remove)
        stack.callback(base.register_forward_hook(partial(dry.leave, "loss")).remove)
        stack.enter_context(saved_tensors_hooks(dry.keep, lambda tensor: tensor))
        stack.enter_context(dry)
        summed(objective.logits(base, batch), objective.targets(batch), arms=1)
    return dry


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _frozen(module: nn.Module, weights: Mapping[int, str]) -> int:
    """Bytes of the parameters and buffers that are the base's."""
    own = (*module.parameters(), *module.buffers())
    return sum(tensor.nbytes for tensor in own if weights[_storage(tensor)] == "base")


def _matrices(layer: nn.Module) -> list[Tensor]:
    linear_layers = [module for module in layer.modules() if isinstance(module, nn.Linear) or is_conv1d(module)]
    return [module.get_parameter("weight") for module in linear_layers]


def _activations(dry: DryRun, layers: Iterable[str]) -> dict[str, int]:
    """Bytes kept for the backward pass without and with gradient checkpointing, and by the loss."""
    kept, unread = Counter[str](), Counter[str]()
    for key, (storage, place) in dry.kept.items():
        kept[place] += storage.nbytes()
        unread[place] += storage.nbytes() if key not in dry.read else 0
    return {
        "kept": kept.total() - kept["loss"],
        "inputs": sum(storage.nbytes() for storage in dry.read.values()) + unread[""],
        "again": max(unread[name] for name in layers),
        "loss": kept["loss"],
    }
