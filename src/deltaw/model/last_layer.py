"""The end of a model's last layer, run for some tokens alone: what a token gives there, no other token reads.

Behind its attention, the last layer treats each token by itself, and a loss reads the tokens before labels alone. Where
these are few, a training step of 8 layers takes 5 % less time on a CPU (benchmarks/step.py).

Shapes: R rows of a batch, T tokens of the longest, L tokens whose states are read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deltaw.model.names import block_of
from deltaw.model.output_layer import in_place_of
from deltaw.model.trial import CANNOT, agree

Tail = Sequence[nn.Module]  # modules of the last layer whose output for a token depends on no other token
WORTHWHILE = 0.75  # share of the tokens above which all are computed: copying costs time too


@contextmanager
def at(tail: Tail, places: Int[Tensor, " L"], filler: float = 0.0) -> Iterator[None]:
    """In the block, the modules of a tail run for the tokens at `places`, among all R · T; others get `filler`."""
    with ExitStack() as stack:
        for module in tail:
            stack.enter_context(in_place_of(module, partial(_at, places, filler, module.forward)))
        yield


def _at(
    places: Int[Tensor, " L"], filler: float, own: Callable[[Tensor], Tensor], x: Float[Tensor, "*tokens d_in"]
) -> Float[Tensor, "*tokens d_out"]:
    tokens = x.flatten(0, -2)
    if len(places) > WORTHWHILE * len(tokens):
        return own(x)
    some = own(tokens.index_select(0, places)[None])[0]
    return some.new_full((len(tokens), some.shape[1]), filler).index_copy(0, places, some).view(*x.shape[:-1], -1)


@torch.no_grad()
def tail_of(model: PreTrainedModel, adapted: Iterable[str]) -> Tail:
    """The tail of the last layer that has an adapted module, found by trying two short rows; it may be empty.

    Args:
        model: on its device, not the meta device.
        adapted: names of linear layers, whose rows lie arm by arm: no tail holds one.
    """
    names = [*adapted]
    blocks = [*filter(None, map(block_of, names))]
    # Experts with a capacity drop tokens, and which ones depends on the others: a few tokens do not show it.
    limited = any("capacity" in key for key in vars(model.config.get_text_config()))
    if limited or not blocks:
        return ()
    layer = model.get_submodule(blocks[-1])
    ids = torch.tensor([[1, 2, 3], [3, 1, 2]], device=model.device)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    calls: list[Callable[[], Any]] = []
    with _noted(layer, calls):
        logits = model(**inputs).logits
    if len(calls) != 1:
        return ()
    held = {model.get_submodule(name) for name in names}
    try:
        right = _states(calls[0]())
    except CANNOT:
        return ()
    tail = [*_alone(layer, held, partial(_is_unread, calls[0], right))]
    return tail if tail and _is_unread(lambda: model(**inputs).logits, logits, tail) else ()


@contextmanager
def _noted(layer: nn.Module, calls: list[Callable[[], Any]]) -> Iterator[None]:
    """In the block, each call of a layer is kept, to make it again."""

    def note(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append(lambda: layer(*args, **named))

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _alone(layer: nn.Module, held: set[nn.Module], is_unread: Callable[[Tail], bool]) -> Iterator[nn.Module]:
    """The largest modules inside a layer that multiply by a matrix, hold none of some others, and pass."""
    for module in layer.children():
        if all(weight.dim() < 2 for weight in module.parameters()):
            continue
        if held.isdisjoint(module.modules()) and is_unread([module]):
            yield module
        else:
            yield from _alone(module, held, is_unread)


def _is_unread(run: Callable[[], Any], right: Float[Tensor, "R T _"], tail: Tail) -> bool:
    """Whether some tokens get the same from `run` where a tail computes them alone and leaves no number for others.

    Each module of the tail must run, and once: of a module that does not, this tells nothing.
    """
    places = torch.tensor([1, 3, 5], device=right.device)
    calls: dict[nn.Module, list[Callable[[], Any]]] = {module: [] for module in tail}
    try:
        with at(tail, places, filler=torch.nan), ExitStack() as stack:
            for module, noted in calls.items():
                stack.enter_context(_noted(module, noted))
            found = _states(run()).flatten(0, 1)[places]
    except CANNOT:
        return False
    if any(len(noted) != 1 for noted in calls.values()):
        return False
    tokens = right.flatten(0, 1)
    return agree(found, tokens[places], tokens[places - 1])


def _states(output: Any) -> Tensor:
    """What a layer gives, alone or before other things."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
