"""Packed rows teach the same as their examples alone, in every model whose attention can be kept within examples."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deltaw.data.batches import StepBatches
from deltaw.data.example import IGNORED, Example
from deltaw.data.packing import STRETCH, pack, packed_batch
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.layers import Moment, parameters_of, set_moment
from deltaw.model import packed_attention
from deltaw.model.loading import load_base, load_tokenizer
from deltaw.model.packed_attention import attention_of, by_mask, by_positions
from deltaw.model.projections import projections
from deltaw.training.objectives import Causal
from deltaw.training.task import LoraArms
from tests.support.architectures import ARCHITECTURES
from tests.support.runs import assert_equal_metrics, assert_same_run, at_step
from tests.support.texts import examples, pairs
from tests.support.tiny import factors, largest_difference, learnt, metrics, run

CAUSAL = [name for name, architecture in ARCHITECTURES.items() if architecture.task == "causal"]
LOOK_ACROSS = ["bloom", "falcon per head"]  # their ALiBi is made of a mask of two dimensions
NEED_A_MASK = ["opt", "falcon", "falcon grouped", "mpt"]

ARM = Arm("r2-s0", 2, seed=0, alpha=16.0, scaling="alpha/r", lr=1e-3)
ARMS = [ARM, replace(ARM, name="r2-s1", seed=1), replace(ARM, name="r2-s0-shuffled", control="shuffled")]
PACKED = ["arms.ranks=[2]", "arms.seeds=[0,1]", "arms.controls=[shuffled]", "data.packing=true", "data.max_length=60"]


def random_examples(lengths: list[int]) -> list[Example]:
    """Examples of the given lengths, no two alike, that learn all tokens but the first."""
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(1, 299, (length,), generator=draw).tolist() for length in lengths]
    return [Example(ids[:1], ids[1:], ids[1:]) for ids in tokens]


def tokens_of(example: Example) -> tuple[int, ...]:
    return (*example.prompt, *example.completion)


def parts(batch: dict[str, torch.Tensor], of: torch.Tensor) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """The tokens of each example in packed rows, and the values of `of` at the same places."""
    columns = (batch[name] for name in ("input_ids", "attention_mask", "position_ids"))
    for ids, mask, positions, row in zip(*columns, of, strict=True):
        assert not positions[mask == 0].any()
        starts = [*(positions[mask == 1] == 0).nonzero()[:, 0].tolist(), int(mask.sum())]
        for first, last in pairwise(starts):
            assert positions[first:last].tolist() == list(range(last - first))
            yield tuple(ids[first:last].tolist()), row[first:last]


@pytest.mark.parametrize("name", CAUSAL)
def test_packed_logits_are_those_of_the_examples_alone_or_the_model_is_refused(name: str) -> None:
    model = ARCHITECTURES[name].build()
    model.config.use_cache = False
    if name in LOOK_ACROSS:
        assert attention_of(model) is None
        return
    attention = attention_of(model)
    assert attention and attention is (by_mask if name in NEED_A_MASK else by_positions)
    drawn = random_examples([3, 21, 17, 9, 2, 12, 11])  # above and below the windows of eight tokens
    batch = packed_batch([drawn], Causal(0).collate, limit=21)
    assert batch["input_ids"].shape == (4, 21) and not batch["attention_mask"].all()
    model.double()
    together = model(batch["input_ids"], **attention(model, batch["position_ids"])).logits
    rounding = 1e-10 if model.config._attn_implementation == "sdpa" else 1e-5  # the eager ones take parts in float32
    for ids, logits in parts(batch, together):
        torch.testing.assert_close(logits, model(torch.tensor([ids])).logits[0], rtol=0, atol=rounding)
    assert Counter(ids for ids, _ in parts(batch, together)) == Counter(map(tokens_of, drawn))


def test_a_mask_does_not_take_the_place_of_sliding_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "by_positions", lambda model, positions: {})
    model = ARCHITECTURES["mistral"].build()
    model.config.use_cache = False
    assert attention_of(model) is None
    model.config.sliding_window = None
    assert attention_of(model) is by_mask


@given(data=st.data(), arms=st.integers(1, 3), count=st.integers(1, 20), limit=st.integers(2, 60))
def test_every_example_lies_in_a_row_and_few_tokens_are_padding(
    data: st.DataObject, arms: int, count: int, limit: int
) -> None:
    sizes = st.lists(st.integers(2, limit), min_size=count, max_size=count)
    drawn = [random_examples(data.draw(sizes)) for _ in range(arms)]
    arms_rows = pack(drawn, limit)
    longest = max(len(tokens_of(example)) for examples in drawn for example in examples)
    tokens = [[sum(len(tokens_of(example)) for example in row) for row in rows] for rows in arms_rows]
    for given_, rows in zip(drawn, arms_rows, strict=True):
        assert Counter(map(tokens_of, given_)) == Counter(tokens_of(example) for row in rows for example in row)
        assert all(rows)
    (rows_of_an_arm,) = set(map(len, tokens))
    width, most = max(map(max, tokens)), max(map(sum, tokens))
    assert width <= min(limit, STRETCH * longest)
    assert rows_of_an_arm * width <= 2 * most + longest  # two rows together hold more tokens than one may
    batch = packed_batch(drawn, Causal(0).collate, limit)
    assert batch["attention_mask"].sum(1).tolist() == [load for loads in tokens for load in loads]
    assert (batch["labels"][batch["position_ids"] == 0] == IGNORED).all()
    learnt = batch["position_ids"] > 0
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])


def test_rows_longer_than_the_longest_example_may_hold_less_padding() -> None:
    lengths = [26, 30, 40, 44, 45, 50, 57, 62, 69, 71, 81, 89, 93, 97, 113, 119]  # 1086, of a step of the bundled text

    def computed(limit: int) -> int:
        return packed_batch([random_examples(lengths)], Causal(0).collate, limit)["input_ids"].numel()

    assert computed(limit=119) == 10 * 119
    assert computed(limit=192) < 1.05 * sum(lengths)


@given(micro=st.integers(1, 3), world=st.integers(1, 3), accumulate=st.integers(1, 3), step=st.integers(0, 9))
def test_ranks_and_micro_batches_share_out_the_packed_examples(
    micro: int, world: int, accumulate: int, step: int
) -> None:
    read, batch = examples(pairs(25)), micro * world * accumulate

    def drawn(arm: int, batches: list[dict[str, torch.Tensor]]) -> Counter[tuple[int, ...]]:
        own = [{name: rows.chunk(len(ARMS))[arm] for name, rows in batch.items()} for batch in batches]
        return Counter(ids for batch in own for ids, _ in parts(batch, batch["labels"]))

    one = [StepBatches(read, ARMS, batch, batch, 10, 0, 1, packing=True)[step]]
    several = [
        StepBatches(read, ARMS, batch, micro, 10, rank, world, packing=True)[step * accumulate + m]
        for rank in range(world)
        for m in range(accumulate)
    ]
    assert all(drawn(arm, one) == drawn(arm, several) for arm in range(len(ARMS)))
    assert all(torch.equal(one[0]["completion_tokens"], each["completion_tokens"]) for each in several)


@given(micro=st.integers(1, 4), world=st.integers(1, 3), accumulate=st.integers(1, 3), step=st.integers(0, 9))
def test_processes_and_micro_batches_compute_about_as_many_tokens(
    micro: int, world: int, accumulate: int, step: int
) -> None:
    read, batch = examples(pairs(25)), micro * world * accumulate
    lengths = read.lengths[StepBatches(read, [ARM], batch, batch, 10, 0, 1, packing=True).drawn(0, step)[0]]
    tokens = [
        int(StepBatches(read, [ARM], batch, micro, 10, rank, world, packing=True)[index]["attention_mask"].sum())
        for rank in range(world)
        for index in range(step * accumulate, (step + 1) * accumulate)
    ]
    assert max(tokens) - min(tokens) <= np.ptp(lengths)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return run(folder, *PACKED, "run.name=trained")


def test_a_packed_step_has_the_losses_and_gradients_of_the_padded_one(folder: Path) -> None:
    base = load_base(str(folder / "base"), load_tokenizer(str(folder / "base"))).model.double()
    task = LoraArms(base, list(projections(base)), ARMS, {}, Causal(0, attention_of(base)), 0.0, 0.0, 1.0, 0.0, 1, 2)
    for k in range(len(task.learners)):
        for weight in parameters_of(base, k):  # with a B of zeros, A has no gradient
            torch.nn.init.normal_(weight, 0, 0.1, generator=torch.Generator().manual_seed(0))
    task.double()
    read = learnt(folder)
    steps = StepBatches(read, ARMS, 12, 12, 1, 0, 1, packing=True, shadows=2)

    def step() -> tuple[torch.Tensor, list[torch.Tensor]]:
        set_moment(base, Moment(signs=steps[0]["signs"]))
        losses = task.loss_sums(steps[0])
        factors = [weight for k in range(len(task.learners)) for weight in parameters_of(base, k)]
        return losses, list(torch.autograd.grad(losses.sum(), factors))

    packed_rows, packed_padding, together = len(steps[0]["input_ids"]), steps.padding(), step()
    steps.packing = False  # the same examples
    assert packed_rows < len(steps[0]["input_ids"]) and packed_padding < steps.padding()
    torch.testing.assert_close(together, step(), rtol=0, atol=1e-10)


def test_a_packed_run_is_the_same_however_it_is_cut_or_stopped_or_alone(
    folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *PACKED, "run.name=stopped")
    assert_same_run(run(folder, *PACKED, "run.name=stopped"), trained)
    cut = run(folder, *PACKED, "run.name=cut", "data.micro_batch=2")
    assert_equal_metrics(cut, trained)
    alone = run(folder, *PACKED, "run.name=alone", "arms.seeds=[1]", "arms.controls=[]")
    arms = [arm.name for arm in (trained / "snapshots").iterdir()]
    assert len(arms) == 6  # two of them are shadows
    for other, name in [*((cut, arm) for arm in arms), (alone, "r2-s1")]:
        assert largest_difference(factors(other, name), factors(trained, name)) <= 1e-10


def test_packed_and_padded_arms_learn_the_same(folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    padded = run(folder, *PACKED, "run.name=padded", "data.packing=false")
    assert largest_difference(factors(padded, "r2-s0"), factors(trained, "r2-s0")) < 1e-9
    start = [[line for line in metrics(path) if line.startswith("0,")] for path in (padded, trained)]
    assert start[0] == start[1] and start[0]
    run(folder, *PACKED, "run.name=told", "trainer.max_steps=1")
    shares = [float(share) for share in re.findall(r"([\d.]+)% padding", capsys.readouterr().out)]
    assert shares[1] < shares[0]


@pytest.mark.parametrize("task", ["seq2seq", "classification"])
def test_packing_is_refused_for_tasks_that_are_not_causal(folder: Path, task: str) -> None:
    with pytest.raises(UserError, match=rf"task={task} needs one example per row.*give data.packing=false"):
        run(folder, "data.packing=true", f"task={task}", "run.name=refused")
    assert not (folder / "runs" / "refused").exists()


def test_a_run_on_a_base_that_looks_across_examples_is_refused(folder: Path) -> None:
    ARCHITECTURES["bloom"].save(folder / "bloom")
    ARCHITECTURES["bloom"].save(folder / "bloom")
    with pytest.raises(UserError, match=r"BloomForCausalLM of .*bloom looks across the examples"):
        run(folder, "data.packing=true", f"model.path={folder / 'bloom'}", "run.name=refused")
    assert not (folder / "runs" / "refused").exists()
