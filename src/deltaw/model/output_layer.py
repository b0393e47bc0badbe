"""The output layer of a model by itself: logits of some tokens, where logits of all would take most of the memory.

The model's own code makes them, with its scales and soft caps. It is run with the body (the modules before the output
layer) replaced by what the body has given, cut to the tokens at hand.

Shapes: R rows of a batch, T tokens of the longest, L chosen tokens, D width of a state, C classes (tokens of the
vocabulary, or labels).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deltaw.errors import UserError
from deltaw.model.trial import CANNOT, agree

Made = TypeVar("Made")
OutputLayer = Callable[[Float[Tensor, "tokens D"]], Float[Tensor, "tokens C"]]
Body = Sequence[nn.Module]  # modules of a model; the output layer reads the states of the last
Use = Callable[[Float[Tensor, "L D"], OutputLayer], Made]


def at_tokens(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], places: Int[Tensor, " L"], use: Use[Made], body: Body
) -> Made:
    """What `use` makes of the states of some tokens, and of the output layer, which turns states into logits.

    Args:
        model: gives logits of all tokens.
        inputs: of the model: rows of T tokens.
        places: of the tokens, among all R · T.
        use: called inside the forward pass of the model, where an engine that shards has gathered the output layer.
        body: as `body_of` finds it; without one, the states are the logits themselves.
    """
    if not body:
        return use(model(**inputs).logits.flatten(0, 1).index_select(0, places), lambda logits: logits)
    forward = model.forward

    def run(**inputs: Tensor) -> Made:
        with _outputs_of(body, leave_states=False) as outputs:
            forward(**inputs)
        *before, last = [given.pop() for given in outputs.values()]
        states = last.last_hidden_state.flatten(0, 1).index_select(0, places)
        last = _with_states(last, states[None])  # the states of other tokens can go
        return use(states, _output_layer(forward, inputs, body, [*before, last]))

    with in_place_of(model, run):
        made: Made = model(**inputs)
    return made


@torch.no_grad()
def body_of(model: PreTrainedModel) -> Body:
    """The body behind which the output layer gives a token the same logits, up to rounding, without the other tokens.

    Found by trying two short rows; there is none if the output layer reads more than the states of one token. On the
    meta device shapes alone are compared.

    Raises:
        UserError: the model does not give logits for each token of a row.
    """
    ids = torch.tensor([[1, 2, 3], [3, 1, 2]], device=model.device)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    bodies = [*_bodies(model)]
    with _outputs_of({module for body in bodies for module in body}) as outputs:
        logits = model(**inputs).logits
    if logits.shape[:2] != ids.shape:
        raise UserError(
            f"{type(model).__name__} of {model.name_or_path} gives logits for {logits.shape[1]} places of a row of "
            f"{ids.shape[1]} tokens, so that labels would meet those of other tokens: give another model.path"
        )
    for body in bodies:
        if all(len(outputs[module]) == 1 for module in body):
            layer = _output_layer(model.forward, inputs, body, [outputs[module][0] for module in body])
            if _reads_states_alone(layer, outputs[body[-1]][0], logits.flatten(0, 1)):
                return body
    return ()


def _bodies(model: PreTrainedModel) -> Iterator[Body]:
    """What may be the body of a model."""
    decoder = model.get_decoder()
    both = (model.get_encoder(), decoder) if model.config.is_encoder_decoder else (decoder,)
    yield from (body for body in ((model.base_model,), both) if model not in body)


def _reads_states_alone(layer: OutputLayer, output: Any, logits: Float[Tensor, "tokens C"]) -> bool:
    """Whether an output layer makes `logits` of all tokens out of the states of some in the `output` of a body."""
    places = torch.tensor([1, 3, 5], device=logits.device)
    try:
        states = output.last_hidden_state.flatten(0, 1)
        none, alone = layer(states[:0]), layer(states[places])
    except CANNOT:
        return False
    right, wrong = logits[places], logits[places - 1]
    if none.shape != right[:0].shape or alone.shape != right.shape:
        return False
    return right.is_meta or agree(alone, right, wrong)


@contextmanager
def _outputs_of(modules: Iterable[nn.Module], leave_states: bool = True) -> Iterator[dict[nn.Module, list[Any]]]:
    """In the block, the outputs of some modules are kept. Without its states, the last leaves nothing to do behind it.

    Yields the outputs of each module, one for each time that it is called.
    """
    outputs: dict[nn.Module, list[Any]] = {module: [] for module in modules}

    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        outputs[module].append(output)
        last = module is [*outputs][-1]
        return _with_states(output, output.last_hidden_state[:, :0]) if last and not leave_states else None

    with ExitStack() as stack:
        for module in outputs:
            stack.callback(module.register_forward_hook(keep).remove)
        yield outputs


def _output_layer(
    forward: Callable[..., Any], inputs: Mapping[str, Tensor], body: Body, outputs: Sequence[Any]
) -> OutputLayer:
    """A model's own `forward`, in which the body gives its `outputs` again, with the states at hand as one row."""

    def logits(states: Float[Tensor, "tokens D"]) -> Float[Tensor, "tokens C"]:
        given = [*outputs[:-1], _with_states(outputs[-1], states[None])]
        with ExitStack() as stack:
            for module, output in zip(body, given, strict=True):
                stack.enter_context(in_place_of(module, partial(_give, output)))
            made: Tensor = forward(**inputs).logits
        return made.flatten(0, 1)

    return logits


def _give(output: Any, *_: object, **__: object) -> Any:
    return output


def _with_states(output: Any, states: Float[Tensor, "rows tokens D"]) -> Any:
    return type(output)(**{**output, "last_hidden_state": states})


@contextmanager
def in_place_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """In the block, calling `module` runs `forward`, between the hooks of the module."""
    own = vars(module).get("forward")  # as wrappers leave it, before that of the class
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
