"""Which examples each arm learns at a step, and in which order."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaw.data.batches import FromStep, StepBatches
from deltaw.data.example import IGNORED, Example
from deltaw.data.order import dealt, stratified
from deltaw.data.record import Pair
from deltaw.lora.arm import Arm
from deltaw.lora.shadows import sign_of
from tests.support.texts import WORDS, corpus, examples, pairs

ARM = Arm("r2-s0", 2, seed=0, alpha=1.0, scaling="alpha/r", lr=1e-3)


def rows(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    return [
        tuple(row[mask.bool()].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def signs(batch: dict[str, torch.Tensor]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each row with the signs of its shadows."""
    return [(row, tuple(sign)) for row, sign in zip(rows(batch), batch["signs"].flatten(1).tolist(), strict=True)]


def learnt(batch: dict[str, torch.Tensor]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Completion by prompt."""
    ends = [tuple(row[row != IGNORED].tolist()) for row in batch["labels"]]
    return {row[: -len(end)]: end for row, end in zip(rows(batch), ends, strict=True)}


@given(
    micro=st.integers(1, 3),
    world=st.integers(1, 3),
    accumulate=st.integers(1, 3),
    size=st.integers(5, 30),
    step=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_ranks_and_micro_batches_share_out_what_one_process_sees(
    micro: int, world: int, accumulate: int, size: int, step: int
) -> None:
    learnt, batch = examples(pairs(size)), micro * world * accumulate
    arms = [ARM, replace(ARM, name="r2-s1", seed=1), replace(ARM, name="r2-s0-random", control="random")]
    whole = StepBatches(learnt, arms, batch, batch, 10, 0, 1, shadows=2)[step]
    parts = [
        StepBatches(learnt, arms, batch, micro, 10, rank, world, shadows=2)[step * accumulate + m]
        for rank in range(world)
        for m in range(accumulate)
    ]
    for k in range(len(arms)):
        together = Counter(row for part in parts for row in rows(part)[k * micro : (k + 1) * micro])
        assert together == Counter(rows(whole)[k * batch : (k + 1) * batch])
        signed = Counter(row for part in parts for row in signs(part)[k * micro : (k + 1) * micro])
        assert signed == Counter(signs(whole)[k * batch : (k + 1) * batch])
    labelled = (whole["labels"] != IGNORED).view(len(arms), -1).sum(1)
    assert all(torch.equal(part["completion_tokens"], labelled) for part in parts)


def test_arms_of_one_seed_see_the_same_rows_and_arms_of_two_seeds_see_different_ones() -> None:
    arms = [ARM, replace(ARM, name="r8-s0", rank=8), replace(ARM, name="r2-s1", seed=1)]
    seen = rows(StepBatches(examples(pairs(30)), arms, 6, 6, 1, 0, 1)[0])
    assert seen[:6] == seen[6:12] != seen[12:]


def test_a_shuffled_control_has_every_completion_and_none_with_its_prompt() -> None:
    control = StepBatches(examples(pairs(30)), [replace(ARM, control="shuffled")], 30, 30, 1, 0, 1)[0]
    ends = [row[-2] for row in rows(control)]
    assert sorted(ends) == list(range(1, 31))
    assert all(row[-2] != row[-3] for row in rows(control))  # the last word of prompt n is its completion


def test_random_completions_keep_the_length_use_the_whole_vocabulary_and_follow_from_seed_and_example() -> None:
    long = [Pair(f"{pair.prompt} {pair.prompt}", pair.prompt) for pair in pairs(30)]
    read = examples(long)
    noisy = replace(ARM, control="random")
    true, random, other = (
        [learnt(StepBatches(read, [arm], 30, 30, 3, 0, 1)[step]) for step in range(3)]
        for arm in (ARM, noisy, replace(noisy, seed=1))
    )
    for epoch in range(3):
        assert random[epoch].keys() == true[epoch].keys()  # the prompts
        assert all(len(random[epoch][prompt]) == len(end) for prompt, end in true[epoch].items())
    assert random[0] == random[1] == random[2] != other[0] == other[1]
    drawn = [token for end in random[0].values() for token in end]
    assert set(drawn) == set(range(len(WORDS) + 1))
    same = sum(a == b for prompt, end in true[0].items() for a, b in zip(end, random[0][prompt], strict=True))
    assert same < 0.1 * len(drawn)


@given(size=st.integers(1, 30), batch=st.integers(1, 20), seed=st.integers(0, 3), first=st.integers(0, 4))
@settings(max_examples=20)
def test_steps_take_a_random_order_of_each_epoch_and_sort_each_step_by_length(
    size: int, batch: int, seed: int, first: int
) -> None:
    read = examples(pairs(size))
    steps = StepBatches(read, [ARM], batch, batch, 1000, 0, 1)
    drawn = [steps.drawn(seed, step) for step in range(2 * size + first)]
    for numbers, epochs in drawn:
        assert (np.diff(read.lengths[numbers]) >= 0).all() and np.ptp(epochs) <= batch // size + 1
    numbers, epochs = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    for epoch in range(int(epochs.max())):
        assert sorted(numbers[epochs == epoch]) == list(range(size))


@given(size=st.integers(64, 3000), batch=st.integers(2, 16), seeds=st.just((0, 1)), epoch=st.integers(0, 2))
@settings(max_examples=20)
def test_whole_steps_take_one_example_of_each_stratum_of_lengths_whatever_the_seed(
    size: int, batch: int, seeds: tuple[int, int], epoch: int
) -> None:
    lengths = np.random.default_rng(size).permutation(size).astype(np.int32)
    head = -epoch * size % batch
    whole = (size - head) // batch
    for order in (stratified(lengths, batch, seed, epoch) for seed in seeds):
        assert sorted(order) == list(range(size))
        steps = np.sort(lengths[order[head : head + whole * batch]].reshape(whole, batch), axis=1)
        assert (steps.max(axis=0)[:-1] < steps.min(axis=0)[1:]).all()
    one, other = (stratified(lengths, batch, seed, epoch) for seed in seeds)
    assert (one != other).any()


@given(rounds=st.integers(1, 8), hands=st.integers(1, 8), seed=st.integers(0, 99))
def test_hands_get_equally_many_numbers_and_similar_sums(rounds: int, hands: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).geometric(0.01, rounds * hands)
    out = dealt(np.argsort(sizes), hands).reshape(hands, rounds)
    assert sorted(out.ravel()) == list(range(len(sizes)))
    assert np.ptp(sizes[out].sum(axis=1)) <= np.ptp(sizes)


def test_micro_batches_in_order_of_length_pad_less_than_the_whole_step() -> None:
    read = examples(pairs(30))
    arms = [ARM, replace(ARM, name="r2-s1", seed=1)]
    whole, parts = (StepBatches(read, arms, 16, rows, 10, 0, 1) for rows in (16, 4))
    assert parts.padding() < 0.7 * whole.padding()
    for step in range(10):
        masks = [
            whole[step]["attention_mask"].sum(),
            sum(parts[4 * step + n]["attention_mask"].sum() for n in range(4)),
        ]
        assert masks[0] == masks[1] and (whole[step]["completion_tokens"] == parts[4 * step]["completion_tokens"]).all()


def test_padding_is_the_share_in_the_batches_of_the_run() -> None:
    steps = StepBatches(examples(pairs(30)), [ARM, replace(ARM, name="r2-s1", seed=1)], 6, 3, 9, 0, 1)
    masks = [steps[index]["attention_mask"] for index in range(18)]
    padded = sum(int((mask == 0).sum()) for mask in masks)
    assert steps.padding() == pytest.approx(padded / sum(mask.numel() for mask in masks)) and padded


def test_padding_is_sampled_from_whole_steps_of_all_processes() -> None:
    read = examples(pairs(30))
    ranks = [StepBatches(read, [ARM], 16, 4, 64, rank, world=2) for rank in range(2)]
    masks = [[rank[index]["attention_mask"] for index in range(len(rank))] for rank in ranks]
    shares = [1 - sum(int(m.sum()) for m in of_rank) / sum(m.numel() for m in of_rank) for of_rank in masks]
    assert abs(shares[0] - shares[1]) > 0.04
    tokens = sum(mask.numel() for of_rank in masks for mask in of_rank)
    together = 1 - sum(int(mask.sum()) for of_rank in masks for mask in of_rank) / tokens
    assert [rank.padding() for rank in ranks] == [pytest.approx(together, abs=0.01)] * 2


def test_another_completion_shortens_the_prompt_where_they_share_a_length() -> None:
    rows = [{"prompt": "w1 w2 w3 w4", "completion": "w5"}, {"prompt": "w6", "completion": "w7 w8 w9"}]
    read = examples([Pair(**row) for row in rows], max_length=5, eos=False)
    assert read.with_completion_of(0, 1) == Example([4, 5], [8, 9, 10], [8, 9, 10])
    assert read.with_completion_of(1, 0) == Example([7], [6], [6])


def test_tokens_that_are_not_learnt_are_not_replaced_by_noise() -> None:
    read = examples([Pair("w1", "w2 w3 w4")], eos=False)
    read.corpus._marks = read.corpus._marks.copy()  # a memory map of the file
    read.corpus._marks[2] = 0
    assert read[0] == Example([2], [3, 4, 5], [3, IGNORED, 5])
    noisy = read.with_random_completion(0, 0)
    assert (noisy.completion[1], noisy.labels[1]) == (4, IGNORED)
    assert [noisy.labels[0], noisy.labels[2]] == [noisy.completion[0], noisy.completion[2]] != [3, 5]


def test_the_noise_of_a_classification_is_drawn_from_its_classes() -> None:
    made = corpus([{"text": "w1", "label": n % 3} for n in range(40)], task="classification")
    assert made.vocabulary == 3


def test_a_resumed_epoch_keeps_its_length() -> None:
    assert (list(FromStep(3, 6)), len(FromStep(3, 6))) == ([3, 4, 5], 6)


def test_a_shadow_gives_an_example_the_sign_of_its_epoch_and_a_control_has_none() -> None:
    arms = [ARM, replace(ARM, name="r2-s0-random", control="random")]
    steps = StepBatches(examples(pairs(30)), arms, 20, 20, 30, 0, 1, shadows=2)
    seen: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for step in range(30):  # 20 epochs of 30 examples
        batch = signs(steps[step])
        assert {sign for _, sign in batch[20:]} == {(0, 0)}
        for row, sign in batch[:20]:
            seen.setdefault(row, []).append(sign)
    assert {sign for of_row in seen.values() for sign in of_row} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert sum(len(set(of_row)) > 2 for of_row in seen.values()) > 25  # a new draw in each epoch
    number = int(steps.drawn(0, 0)[0][0])
    assert signs(steps[0])[0][1] == tuple(sign_of(f"r2-s0-shadow{n}", number, 0) for n in (1, 2))
