"""Count what a training step takes, on torch's meta device: tensors there have shapes and no values.

A count needs neither weights nor memory. It runs what training runs: the same model, arms and loss.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention, softmax
from torch.overrides import TorchFunctionMode

from deltaw.data.example import Example
from deltaw.data.packing import packed_batch
from deltaw.lora.arm import Arm
from deltaw.lora.layers import parameters_of
from deltaw.model.examples_in_rows import examples_in_rows
from deltaw.model.names import block_of, is_conv1d
from deltaw.model.output_layer import OutputLayer
from deltaw.plan.workload import ArmsSize, BaseSize, RowCost, Workload
from deltaw.training.objectives import Causal, Objective, labels_at_once, losses_and_gradients, targets

# Products, with the number of tensors that come before the two factors.
_PRODUCTS: dict[Any, int] = {
    linear: 0,
    torch.matmul: 0,
    Tensor.matmul: 0,
    Tensor.__matmul__: 0,
    torch.bmm: 0,
    Tensor.bmm: 0,
    torch.addmm: 1,
    Tensor.addmm_: 1,
    torch.nn.functional.grouped_mm: 0,  # experts
    torch.baddbmm: 1,
    Tensor.baddbmm: 1,
}
# What models ask about values, answered for rows of one length: is a mask plain everywhere, and has a row padding?
_ANSWERS = {Tensor.__bool__: True, Tensor.__contains__: False}
_IN_FLOAT32 = (layer_norm, softmax, torch.softmax, Tensor.softmax)  # under autocast, of those that keep their input


class ShapeRun(TorchFunctionMode):
    """Run torch on the meta device: draw nothing, and count what is multiplied and kept for the backward pass.

    All rows have the same length, so that masks are plain and hold no padding.

    Args:
        owners: "base" or "arms" for the storage of each weight.
        autocast: compute in bfloat16 as a GPU does under `bf16-mixed`; torch has no autocast for the meta device.

    Attributes:
        place: the layer at work, "loss", or "" outside of both.
        flops: products, forward, by place and by the owner of the weight: "base", "arms", or "attention" for none.
        kept: storages that the backward pass needs, except weights, each with the place that kept it first.
        inputs: storages that layers were called with.
    """

    def __init__(self, owners: Mapping[int, str] | None = None, autocast: bool = False):
        super().__init__()
        self.owners, self.autocast = owners or {}, autocast
        self.place = ""
        self.flops: Counter[tuple[str, str]] = Counter()
        self.kept: dict[int, tuple[torch.UntypedStorage, str]] = {}
        self.inputs: dict[int, torch.UntypedStorage] = {}

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
        owner = self.owners.get(_storage(factors[1]), "attention")
        self.flops[self.place, owner] += 2 * out.numel() * factors[0].shape[-1]
        return out

    def _cast(self, args: Iterable[Any], dtype: torch.dtype) -> list[Any]:
        """Under autocast, the arguments with their floating-point tensors in another dtype."""
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
        """Attention as the fast kernels do it, which keep q, k, v, the output and one sum per query.

        Torch takes no fast kernel if k has fewer heads than q without `enable_gqa`: then it keeps the probabilities.
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
        """Note a tensor that autograd keeps; a hook of `saved_tensors_hooks`."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.owners:
            self.kept.setdefault(storage._cdata, (storage, self.place))
        return tensor

    def enter(self, place: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Note that a layer is at work, and its inputs; a forward pre-hook."""
        self.place = place
        storages = [given.untyped_storage() for given in args if isinstance(given, Tensor)]
        self.inputs |= {storage._cdata: storage for storage in storages}

    def leave(self, place: str, *_: object) -> None:
        """Note where the work goes on behind a module; a forward hook."""
        self.place = place


def count(
    base: nn.Module,
    arms: list[Arm],
    shadows: list[Arm],
    objective: Objective,
    prompt: int,
    completion: int,
    autocast: bool = False,
    packed: bool = False,
) -> Workload:
    """Run the loss of one row of each arm on the meta device, and count.

    Args:
        base: with arms and shadows on it.
        arms: all of them.
        shadows: all of them.
        objective: makes the loss from the logits.
        prompt: tokens of a row that the arms read.
        completion: tokens or labels of a row that the arms learn.
        autocast: whether training is under `bf16-mixed`.
        packed: whether examples share rows, so that attention needs a mask; a row is still one example.
    """
    example = Example([0] * prompt, [0] * completion, [0] * completion)
    rows, collate = [example] * len(arms), objective.collate
    made = packed_batch([[row] for row in rows], collate, limit=0) if packed else collate(rows)
    batch = {name: tensor.to("meta") for name, tensor in made.items()}
    factors = {arm.name: parameters_of(base, k) for k, arm in enumerate([*arms, *shadows])}
    owners = {_storage(tensor): "base" for tensor in (*base.parameters(), *base.buffers())}
    owners |= {_storage(weight): "arms" for of_arm in factors.values() for weight in of_arm}
    layers = _layers(base, owners)
    run = ShapeRun(owners, autocast)
    with examples_in_rows(packed):
        classes = _forward(run, base, objective, layers, batch)
    at_once = labels_at_once(classes) / len(batch["labelled"]) if objective.body else inf
    tokens = sum(mask.shape[1] for mask in objective.read(batch))
    return Workload(
        _base_size(base, layers, owners),
        _arms_size(factors, arms),
        _row_cost(run, layers, tokens, isinstance(objective, Causal), _weights(factors, shadows), at_once),
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _layers(base: nn.Module, owners: Mapping[int, str]) -> dict[str, nn.Module]:
    """The numbered layers by name, without the lists that hold heads of arms."""
    names = dict.fromkeys(block_of(name) for name, _ in base.named_modules())
    layers = {name: base.get_submodule(name) for name in names if name}
    return {name: layer for name, layer in layers.items() if _base_bytes(layer, owners)}


def _forward(
    run: ShapeRun,
    base: Any,
    objective: Objective,
    layers: Mapping[str, nn.Module],
    batch: dict[str, Tensor],
) -> int:
    """Run the forward pass and the loss; returns the number of classes that a label has."""
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(partial(run.enter, name)).remove)
            stack.callback(layer.register_forward_hook(partial(run.leave, "")).remove)
        stack.enter_context(saved_tensors_hooks(run.keep, lambda tensor: tensor))
        stack.enter_context(run)
        return objective.at_labels(base, batch, partial(_lose, run, targets(batch)))


def _lose(run: ShapeRun, classes: Tensor, states: Tensor, layer: OutputLayer) -> int:
    """Count the loss; returns the number of classes."""
    run.place = "loss"
    *_, gradients = losses_and_gradients(states, layer, classes)
    run.place = ""
    run.keep(gradients)
    return layer(states[:0]).shape[1]


def _base_size(base: nn.Module, layers: Mapping[str, nn.Module], owners: Mapping[int, str]) -> BaseSize:
    frozen = [weight for weight in base.parameters() if owners[_storage(weight)] == "base"]
    packable = [weight for layer in layers.values() for weight in _matrices(layer)]
    sizes = [_base_bytes(layer, owners) for layer in layers.values()]
    return BaseSize(
        layers=len(layers),
        parameters=sum(weight.numel() for weight in frozen),
        packable_parameters=sum(weight.numel() for weight in packable),
        parameter_bytes=packable[0].element_size(),
        total_bytes=_base_bytes(base, owners),
        layers_bytes=sum(sizes),
        largest_layer_bytes=max(sizes),
    )


def _base_bytes(module: nn.Module, owners: Mapping[int, str]) -> int:
    """Bytes of the parameters and buffers in a module that belong to the base."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.nbytes for tensor in tensors if owners[_storage(tensor)] == "base")


def _matrices(layer: nn.Module) -> list[Tensor]:
    linear_layers = [module for module in layer.modules() if isinstance(module, nn.Linear) or is_conv1d(module)]
    return [module.get_parameter("weight") for module in linear_layers]


def _weights(factors: Mapping[str, list[nn.Parameter]], arms: Iterable[Arm]) -> int:
    """Number of the parameters of some arms."""
    return sum(weight.numel() for arm in arms for weight in factors[arm.name])


def _arms_size(factors: Mapping[str, list[nn.Parameter]], arms: Iterable[Arm]) -> ArmsSize:
    weights = [weight for of_arm in factors.values() for weight in of_arm]
    return ArmsSize(
        parameters={arm.name: _weights(factors, [arm]) for arm in arms},
        total_bytes=sum(weight.nbytes for weight in weights),
        trained_bytes=sum(weight.nbytes for weight in weights if weight.requires_grad),
    )


def _row_cost(
    run: ShapeRun, layers: Iterable[str], tokens: int, causal: bool, of_shadows: int, at_once: float
) -> RowCost:
    """What a `run` of one row of each arm has counted.

    Args:
        run: done.
        layers: names of the layers.
        tokens: of the row.
        causal: whether a token attends to earlier tokens alone.
        of_shadows: number of the shadows' parameters.
        at_once: the labels whose logits exist at the same time, at most, divided by the labels of the row.
    """
    share = 0.5 if causal else 1.0  # of a row's tokens that a token attends to, on average
    flops = {key: times * (share if key[1] == "attention" else 1) for key, times in run.flops.items()}
    base_flops, attention_flops, arms_flops = (
        sum(times for (_, owner), times in flops.items() if owner == counted)
        for counted in ("base", "attention", "arms")
    )
    kept, recomputed = Counter[str](), Counter[str]()  # bytes by place; a checkpointed layer keeps its inputs
    for key, (storage, place) in run.kept.items():
        kept[place] += storage.nbytes()
        recomputed[place] += storage.nbytes() if key not in run.inputs else 0
    return RowCost(
        tokens=tokens,
        kept_bytes=kept.total() - kept["loss"],
        checkpointed_bytes=sum(storage.nbytes() for storage in run.inputs.values()) + recomputed[""],
        recomputed_bytes=max(recomputed[name] for name in layers),
        loss_bytes=kept["loss"],
        most_loss_bytes=kept["loss"] * at_once,
        base_flops=base_flops,
        attention_flops=attention_flops,
        arms_flops=arms_flops,
        shadows_flops=4 * tokens * of_shadows,  # each factor is in two products, each with a multiplication and a sum
        layers_flops=sum(times for (place, _), times in flops.items() if place in layers),
    )
