"""The objective of each task: how examples become a batch, and which logits are compared with which labels.

A batch has `labelled` (L,), the places of the labels in `labels` flattened. Logits are made there alone, and at most
`LOGITS_AT_ONCE` of them at a time: those of all tokens would take most of the memory.

Shapes: R rows of a batch, T tokens of the longest row, S tokens of the longest row of an encoder, L labels of all rows,
D width of a token's state, C classes (tokens of the vocabulary, or labels).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from deltaw.data.example import IGNORED, Example
from deltaw.model.last_layer import Tail, at
from deltaw.model.output_layer import Body, Made, OutputLayer, Use, at_tokens
from deltaw.model.packed_attention import Attention

LOGITS_AT_ONCE = 2**25  # 128 MiB in float32; the loss holds about four times as much, with gradients


class Causal:
    """Predict every token of a completion from the prompt and the tokens before it.

    Args:
        pad: the token that fills up rows.
        attention: makes the arguments of the model that keep the examples of a packed row apart; None for rows of one
            example each.
        body: of the model, as `body_of` finds it; without one, the model makes logits of all tokens.
        tail: of the model, as `tail_of` finds it: run for the tokens before labels alone.

    Attributes:
        packs: whether examples share rows in training.
    """

    task_type = "CAUSAL_LM"  # as PEFT calls it
    unit = "token"  # losses are a mean over these

    def __init__(self, pad: int, attention: Attention | None = None, body: Body = (), tail: Tail = ()):
        self.pad, self.attention, self.body, self.tail = pad, attention, body, tail
        self.packs = attention is not None

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Prompts with their completions, padded on the right: input_ids, attention_mask and labels, each (R, T)."""
        ids = [row.prompt + row.completion for row in rows]
        labels = [[IGNORED] * len(row.prompt) + row.labels for row in rows]
        return _read(ids, self.pad) | _labels(labels, first=1)

    def at_labels(self, model: PreTrainedModel, batch: dict[str, Tensor], use: Use[Made]) -> Made:
        """What `use` makes of the tokens before the labels, see `at_tokens`; a batch with `position_ids` is packed."""
        packed: dict[str, Tensor] = {}
        if "position_ids" in batch:
            assert self.attention, "only an objective that packs can keep the examples of a row apart"
            packed = self.attention(model, batch["position_ids"])
        # Padding is on the right, where causal attention does not look; without a mask, PyTorch uses faster kernels.
        inputs = {"input_ids": batch["input_ids"]} | packed
        places = batch["labelled"] - 1
        with at(self.tail, places):
            return at_tokens(model, inputs, places, use, self.body)

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """For each sequence that the model reads: which tokens are not padding."""
        return [batch["attention_mask"].bool()]


class Seq2Seq:
    """Predict every token of a completion from the tokens before it and from the prompt, which an encoder reads.

    Args:
        pad: the token that fills up rows.
        body: as for `Causal`; none for a model that is given labels.
        tail: as for `Causal`.
    """

    task_type = "SEQ_2_SEQ_LM"
    unit = "token"
    packs = False

    def __init__(self, pad: int, body: Body = (), tail: Tail = ()):
        self.pad, self.body, self.tail = pad, body, tail

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Prompts as input_ids and attention_mask (R, S), labels (R, T), padded on the right; S and T differ.

        S ≠ T, so that the shape of a layer's input tells which of the two sequences it reads.
        """
        prompts, labels = _read([row.prompt for row in rows], self.pad), [row.labels for row in rows]
        same_length = max(map(len, labels)) == prompts["input_ids"].shape[1]
        return prompts | _labels(labels, more=int(same_length))

    def at_labels(self, model: PreTrainedModel, batch: dict[str, Tensor], use: Use[Made]) -> Made:
        """What `use` makes of the tokens of the completions, see `at_tokens`."""
        source, labels = {name: batch[name] for name in ("input_ids", "attention_mask")}, batch["labels"]
        shifted = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        # A model without this method is given labels: it shifts them itself, and computes a loss that nobody uses.
        target = {"decoder_input_ids": shifted(labels)} if shifted else {"labels": labels}
        with at(self.tail, batch["labelled"]):
            return at_tokens(model, source | target, batch["labelled"], use, self.body)

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are not padding, in the sequence of the encoder and in that of the decoder."""
        return [batch["attention_mask"].bool(), batch["labels"] != IGNORED]


class Classification:
    """Predict the label of a row from its text.

    Args:
        pad: the token that fills up rows; a decoder classifies by the last token that is not `pad`.
    """

    task_type = "SEQ_CLS"
    unit = "row"
    packs = False
    body: Body = ()  # its logits are few, and the arms learn its output layer

    def __init__(self, pad: int):
        self.pad = pad

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Texts padded on the right: input_ids and attention_mask (R, T); labels (R, 1).

        With token_type_ids (R, T) if one of them is 1: without them, a model that knows types takes all as 0.
        """
        batch = _read([row.prompt for row in rows], self.pad) | _labels([row.labels for row in rows])
        if any(row.token_types for row in rows):
            types = [[*row.token_types] or [0] * len(row.prompt) for row in rows]
            batch["token_type_ids"] = _padded(types, 0)
        return batch

    def at_labels(self, model: PreTrainedModel, batch: dict[str, Tensor], use: Use[Made]) -> Made:
        """What `use` makes of the logits of each row, see `at_tokens`."""
        read = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        return use(model(**read).logits, lambda logits: logits)

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are not padding."""
        return [batch["attention_mask"].bool()]


Objective = Causal | Seq2Seq | Classification


def targets(batch: dict[str, Tensor]) -> Int[Tensor, " L"]:
    """The class of each label."""
    return batch["labels"].flatten().index_select(0, batch["labelled"])


def by_row(batch: dict[str, Tensor], values: Num[Tensor, " L"]) -> Num[Tensor, " R"]:
    """Values of the labels, summed over each row."""
    labels = batch["labels"]
    # Each label has a place of its own, so that the result is the same every time on a GPU too.
    return values.new_zeros(labels.numel()).index_copy(0, batch["labelled"], values).view_as(labels).sum(1)


def repeated(batch: dict[str, Tensor], times: int) -> dict[str, Tensor]:
    """The rows of a batch several times, one after another."""
    places = [batch["labelled"] + n * batch["labels"].numel() for n in range(times)]
    rows = {name: tensor.repeat(times, 1) for name, tensor in batch.items() if name != "labelled"}
    return rows | {"labelled": torch.cat(places)}


def label_losses(
    objective: Objective, model: PreTrainedModel, batch: dict[str, Tensor], smoothing: float = 0.0
) -> Float[Tensor, " L"]:
    """Cross-entropy of each label, in nats, to differentiate by the states of the tokens.

    The gradient of each loss is computed beside it: then its logits can go, and the output layer is run once. The
    output layer itself must have nothing to train.

    Args:
        objective: the task.
        model: makes the logits; in bfloat16, they give losses in float32.
        batch: as `objective.collate` makes it.
        smoothing: share of each label that is spread equally over all classes, in [0, 1).
    """
    use = partial(losses_and_gradients, classes=targets(batch), smoothing=smoothing)
    losses: Tensor = _WithGradients.apply(*objective.at_labels(model, batch, use))
    return losses


@torch.no_grad()
def losses_and_predictions(
    objective: Objective, model: PreTrainedModel, batch: dict[str, Tensor]
) -> tuple[Float[Tensor, " L"], Int[Tensor, " L"]]:
    """Cross-entropy of each label, in nats, and the class with the largest logit in its place."""

    def use(states: Float[Tensor, "L D"], layer: OutputLayer) -> tuple[Float[Tensor, " L"], Int[Tensor, " L"]]:
        found = [
            (_cross_entropies(logits := layer(some), true, 0.0), logits.argmax(1))
            for _, some, true in _parts(states, targets(batch), layer)
        ]
        losses, predictions = zip(*found, strict=True)
        return torch.cat(losses), torch.cat(predictions)

    return objective.at_labels(model, batch, use)


def labels_at_once(classes: int) -> int:
    """The number of labels whose logits exist at the same time."""
    return max(1, LOGITS_AT_ONCE // classes)


def losses_and_gradients(
    states: Float[Tensor, "L D"], layer: OutputLayer, classes: Int[Tensor, " L"], smoothing: float = 0.0
) -> tuple[Float[Tensor, "L D"], Float[Tensor, " L"], Float[Tensor, "L D"]]:
    """The states, the loss of each in nats, and the gradient of each loss by its state; `smoothing` is in [0, 1)."""
    losses, gradients = [], torch.empty_like(states)
    for place, some, true in _parts(states.detach(), classes, layer):
        with torch.enable_grad():
            each = _cross_entropies(layer(some.requires_grad_()), true, smoothing)
        gradients[place] = torch.autograd.grad(each.sum(), some)[0]
        losses.append(each.detach())
    return states, torch.cat(losses), gradients


def _parts(
    states: Float[Tensor, "L D"], classes: Int[Tensor, " L"], layer: OutputLayer
) -> Iterator[tuple[slice, Float[Tensor, "some D"], Int[Tensor, " some"]]]:
    """As many states as the loss takes at once: where they are, the states themselves, and their true classes."""
    size = labels_at_once(layer(states[:0]).shape[1])
    for start in range(0, max(1, len(states)), size):
        place = slice(start, start + size)
        yield place, states[place], classes[place]


class _WithGradients(torch.autograd.Function):
    """Losses of states, of which the gradients are known."""

    @staticmethod
    def forward(
        ctx: Any, states: Float[Tensor, "L D"], losses: Float[Tensor, " L"], gradients: Float[Tensor, "L D"]
    ) -> Float[Tensor, " L"]:
        ctx.save_for_backward(gradients)
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, " L"]) -> tuple[Float[Tensor, "L D"], None, None]:
        (gradients,) = ctx.saved_tensors
        return (gradients * upstream[:, None]).to(gradients.dtype), None, None


def _cross_entropies(
    logits: Float[Tensor, "some C"], classes: Int[Tensor, " some"], smoothing: float
) -> Float[Tensor, " some"]:
    logits = logits.float() if logits.dtype is torch.bfloat16 else logits
    return cross_entropy(logits, classes, reduction="none", label_smoothing=smoothing)


def _labels(rows: list[list[int]], first: int = 0, more: int = 0) -> dict[str, Tensor]:
    """The labels, and the places of those from the `first` token of each row on."""
    labels = _padded(rows, IGNORED, more)
    known = labels != IGNORED
    known[:, :first] = False
    return {"labels": labels, "labelled": known.flatten().nonzero()[:, 0]}


def _read(rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    return {"input_ids": _padded(rows, pad), "attention_mask": _padded([[1] * len(ids) for ids in rows], 0)}


def _padded(rows: list[list[int]], filler: int, more: int = 0) -> Int[Tensor, "R T"]:
    """The rows, filled up to the length of the longest plus `more`."""
    width = max(map(len, rows)) + more
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])
