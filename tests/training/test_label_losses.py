"""The loss where there is a label, some labels at a time, is the loss of all logits at once."""

from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from deltaw.data.example import IGNORED, Example
from deltaw.data.packing import packed_batch
from deltaw.model.output_layer import body_of
from deltaw.model.packed_attention import by_positions
from deltaw.training import objectives
from deltaw.training.objectives import Causal, Seq2Seq, by_row, label_losses, labels_at_once, losses_and_predictions
from tests.support.architectures import ARCHITECTURES
from tests.support.processes import forked
from tests.support.tiny import factors, largest_difference, metrics, run

CLASSES = 300
FEW_LOGITS = 7 * CLASSES  # at once
PACKED = ["data.packing=true", "trainer.max_steps=5"]


@cache
def model_of(name: str) -> PreTrainedModel:
    """An architecture in float64; Gemma 2 caps its logits softly, and BART adds a bias to them."""
    model = ARCHITECTURES[name].build(dtype=torch.float64)
    model.config.final_logit_softcapping = 2.0  # at which random logits bend
    model.config.use_cache = False  # as a base is loaded
    for layer in (model.get_output_embeddings(), model.get_input_embeddings()):
        layer.requires_grad_(False)
    return model


tokens = st.lists(st.integers(1, CLASSES - 1), min_size=1, max_size=6)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    prompt, completion = draw(tokens), draw(tokens)
    learnt = draw(st.lists(st.booleans(), min_size=len(completion), max_size=len(completion)))
    labels = [token if one else IGNORED for token, one in zip(completion, learnt, strict=True)]
    return Example(prompt, completion, labels)


def plain_loss(logits: Tensor, label: int, smoothing: float) -> Tensor:
    """Cross-entropy with a label that is spread, from its definition."""
    wanted = torch.full_like(logits, smoothing / len(logits))
    wanted[label] += 1 - smoothing
    return -(wanted * (logits - logits.logsumexp(0))).sum()


def plain(logits: Tensor, labels: Tensor, shift: int, smoothing: float) -> tuple[Tensor, list[int]]:
    """The loss of each row, and the predictions of the labels in order, from logits of all tokens."""
    found = [
        (row, plain_loss(logits[row, t - shift], int(labels[row, t]), smoothing), int(logits[row, t - shift].argmax()))
        for row in range(len(labels))
        for t in range(shift, labels.shape[1])
        if labels[row, t] != IGNORED
    ]
    rows = [sum((loss for at, loss, _ in found if at == row), logits.new_zeros(())) for row in range(len(labels))]
    return torch.stack(rows), [predicted for *_, predicted in found]


def gradients(model: PreTrainedModel, loss: Tensor) -> list[Tensor | None]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [*torch.autograd.grad(loss, weights, allow_unused=True)] if loss.requires_grad else [None for _ in weights]


def assert_equal(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        one = theirs if theirs is not None else ours
        if one is not None:
            zero = torch.zeros_like(one)
            torch.testing.assert_close(
                zero if ours is None else ours, zero if theirs is None else theirs, rtol=0, atol=1e-10
            )


@pytest.mark.parametrize("name", ["gemma2", "bart", "t5"])
@given(
    rows=st.lists(examples(), min_size=1, max_size=3), at_once=st.integers(1, 20), smoothing=st.sampled_from([0.0, 0.1])
)
def test_losses_gradients_and_predictions_are_those_of_all_logits(
    name: str, rows: list[Example], at_once: int, smoothing: float
) -> None:
    model, shift = model_of(name), int(name == "gemma2")
    objective = (Causal if shift else Seq2Seq)(0, body=body_of(model))
    batch = objective.collate(rows)
    if shift:
        logits = model(input_ids=batch["input_ids"]).logits
    else:
        logits = model(**{key: batch[key] for key in ("input_ids", "attention_mask", "labels")}).logits
    expected, classes = plain(logits, batch["labels"], shift, smoothing)
    weights = torch.linspace(1, 2, len(rows), dtype=torch.float64)  # so that a label's gradient is not the mean's
    with patch.object(objectives, "LOGITS_AT_ONCE", at_once * CLASSES):
        losses = by_row(batch, label_losses(objective, model, batch, smoothing))
        measured, predicted = losses_and_predictions(objective, model, batch)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-10)
    assert_equal(gradients(model, (weights * losses).sum()), gradients(model, (weights * expected).sum()))
    assert predicted.tolist() == classes
    if not smoothing:
        torch.testing.assert_close(by_row(batch, measured), expected, rtol=0, atol=1e-10)


@given(rows=st.lists(examples(), min_size=2, max_size=4))
def test_a_packed_row_loses_what_its_examples_lose_alone(rows: list[Example]) -> None:
    model = model_of("llama")
    objective = Causal(0, by_positions, body_of(model))
    alone, packed = objective.collate(rows), packed_batch([rows], objective.collate, limit=20)
    with patch.object(objectives, "LOGITS_AT_ONCE", FEW_LOGITS):
        sums = [label_losses(objective, model, batch).sum() for batch in (alone, packed)]
    torch.testing.assert_close(*sums, rtol=0, atol=1e-10)


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that is made, views of the weights apart."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [
            tensor.untyped_storage().nbytes() // tensor.element_size()
            for tensor in tree_leaves(made)
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.weights
        ]
        self.elements = max([self.elements, *sizes])
        return made


@pytest.mark.parametrize("length", [32, 128])
def test_no_tensor_of_the_loss_grows_with_vocabulary_times_tokens(length: int) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=4000, **shape)).requires_grad_(False)  # type: ignore[arg-type]
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_()
    objective = Causal(0, body=body_of(model))
    batch = objective.collate([Example([1], [2] * (length - 1), [2] * (length - 1))] * 4)
    with patch.object(objectives, "LOGITS_AT_ONCE", 5 * 4000), Largest(model) as counted:
        label_losses(objective, model, batch).sum().backward()
        losses_and_predictions(objective, model, batch)
    assert counted.elements == 5 * 4000
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None


def test_the_widest_vocabularies_take_a_few_labels_at_once() -> None:
    assert labels_at_once(262_144) == 128
    assert labels_at_once(2) > 10**6
    assert labels_at_once(2**30) == 1


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """A run whose logits exist all at once."""
    return run(folder, "run.name=alone", *PACKED)


def few_at_once() -> None:
    objectives.LOGITS_AT_ONCE = FEW_LOGITS


@pytest.mark.ddp
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_processes_that_take_few_labels_at_once_train_the_same_arms(folder: Path, alone: Path, engine: str) -> None:
    with forked(folder, f"run.name={engine}-few", f"engine={engine}", *PACKED, before=few_at_once):
        pass
    other = alone.parent / f"{engine}-few"
    for arm in ("r2-s0", "r6-s0"):
        assert largest_difference(factors(other, arm, 5), factors(alone, arm, 5)) <= 1e-10
    values = [[float(line.rpartition(",")[2]) for line in metrics(one)[1:]] for one in (other, alone)]
    assert values[0] == pytest.approx(values[1], abs=1e-9)
