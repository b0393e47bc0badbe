"""The end of a model's last layer, run for some tokens alone: what a token gives there, no other token reads.

From its attention's queries on, the last layer treats each token by itself, and a loss reads the tokens before labels
alone. Where these are few, a training step of 8 layers takes 7 % less time on a CPU (benchmarks/step.py).

Shapes: R rows of a batch, T tokens of the longest, L tokens whose states are read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deltaw.model.names import block_of
from deltaw.model.output_layer import in_place_of
from deltaw.model.some_queries import queries_at
from deltaw.model.trial import CANNOT, agree

WORTHWHILE = 0.75  # share of the tokens above which all are computed: copying costs time too


@dataclass(frozen=True)
class Tail:
    """What runs for some tokens alone.

    Attributes:
        modules: of the last layer, whose output for a token depends on no other token.
        attending: the last layer, if no token reads what another one attends to; else None.
    """

    modules: Sequence[nn.Module] = ()
    attending: nn.Module | None = None


NO_TAIL = Tail()


@contextmanager
def at(tail: Tail, places: Int[Tensor, " L"], filler: float = 0.0) -> Iterator[None]:
    """In the block, a tail runs for the tokens at `places`, among all R · T in rising order; others get `filler`."""
    with ExitStack() as stack:
        for module in tail.modules:
            stack.enter_context(in_place_of(module, partial(_at, places, filler, module.forward)))
        if layer := tail.attending:
            stack.enter_context(in_place_of(layer, partial(_attending, places, filler, layer.forward)))
        yield


def _attending(places: Int[Tensor, " L"], filler: float, own: Callable[..., Any], *given: Any, **named: Any) -> Any:
    rows, length, _ = next(iter((*given, *named.values()))).shape
    with queries_at(places, rows, length, filler):
        return own(*given, **named)


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
        return NO_TAIL
    layer = model.get_submodule(blocks[-1])
    ids = torch.tensor([[1, 2, 3], [3, 1, 2]], device=model.device)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    calls: list[Callable[[], Any]] = []
    with _noted(layer, calls):
        logits = model(**inputs).logits
    if len(calls) != 1:
        return NO_TAIL
    held = {model.get_submodule(name) for name in names}
    try:
        right = _states(calls[0]())
    except CANNOT:
        return NO_TAIL
    is_unread = partial(_is_unread, calls[0], right)
    attending = layer if is_unread(Tail(attending=layer)) else None
    tail = Tail([*_alone(layer, held, lambda module: is_unread(Tail([module])))], attending)
    return tail if _is_unread(lambda: model(**inputs).logits, logits, tail) else NO_TAIL


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


def _alone(layer: nn.Module, held: set[nn.Module], is_unread: Callable[[nn.Module], bool]) -> Iterator[nn.Module]:
    """The largest modules inside a layer that multiply by a matrix, hold none of some others, and pass."""
    for module in layer.children():
        if all(weight.dim() < 2 for weight in module.parameters()):
            continue
        if held.isdisjoint(module.modules()) and is_unread(module):
            yield module
        else:
            yield from _alone(module, held, is_unread)


def _is_unread(run: Callable[[], Any], right: Float[Tensor, "R T _"], tail: Tail) -> bool:
    """Whether some tokens get the same from `run` where a tail computes them alone and leaves no number for others.

    Each module of the tail must run, and once: of a module that does not, this tells nothing. Nor does it of attention
    that gives all tokens numbers.
    """
    places = torch.tensor([1, 3, 5], device=right.device)
    calls: dict[nn.Module, list[Callable[[], Any]]] = {module: [] for module in tail.modules}
    try:
        with at(tail, places, filler=torch.nan), ExitStack() as stack:
            for module, noted in calls.items():
                stack.enter_context(_noted(module, noted))
            found = _states(run()).flatten(0, 1)
    except CANNOT:
        return False
    if any(len(noted) != 1 for noted in calls.values()):
        return False
    if tail.attending and not found[places - 1].isnan().all():
        return False
    tokens = right.flatten(0, 1)
    return agree(found[places], tokens[places], tokens[places - 1])


def _states(output: Any) -> Tensor:
    """What a layer gives, alone or before other things."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
