"""`benchmarks/step.py`: leaving a part out changes the way to a step's gradients, and not the gradients."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import step
import torch
from torch import Tensor
from torch.testing import assert_close

from deltaw.lora.layers import parameters_of
from deltaw.model.products import onednn_is_faster
from deltaw.training.task import LoraArms

LONGER = "rows a quarter longer than the longest example"


def way(task: LoraArms, batch: dict[str, Tensor]) -> tuple[torch.Size, Counter[str]]:
    """The shape of the rows, and the operations that the backward pass goes through."""
    seen: set[Any] = set()
    waiting: list[Any] = [step.loss(task, batch).grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [after for after, _ in node.next_functions]
    return batch["input_ids"].shape, Counter(node.name() for node in seen)


def test_a_step_without_a_part_has_the_same_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "STEPS", 1)
    task, batches = step.loaded(tmp_path, step.BUNDLED)
    draw = torch.Generator().manual_seed(0)
    weights = [weight for k in range(len(task.arms)) for weight in parameters_of(task.base, k)]
    for weight in weights:  # with a B of zeros, A has no gradient
        torch.nn.init.normal_(weight, 0, 0.02, generator=draw)
    right, usual = torch.autograd.grad(step.loss(task, batches()[0]), weights), way(task, batches()[0])
    found = step.parts(task)
    assert len(found) == 7 + onednn_is_faster()
    for part, without in found.items():
        with without():
            (batch,) = batches()
            gradients = torch.autograd.grad(step.loss(task, batch), weights)
            assert part == LONGER or way(task, batch) != usual
        for one, other in zip(gradients, right, strict=True):
            assert_close(one, other, rtol=0, atol=1e-4 * other.abs().max().item())


def test_the_table_has_every_part_of_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "seconds", lambda task, batch: float(batch["input_ids"].numel()))
    task, batches = step.loaded(tmp_path, step.BUNDLED)
    found = step.parts(task)
    ratios = {part: step.compared(task, batches, without, step.STEPS) for part, without in found.items()}
    shorter = [ratios.pop(LONGER), ratios.pop("all of these")]
    assert all(lower < 1 and upper <= 1 for lower, _, upper in shorter)  # the text is of this Python's library
    assert set(ratios.values()) == {(1, 1, 1)}
