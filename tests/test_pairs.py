from collections import Counter
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deltaw.arm import Arm
from deltaw.callback import drawn
from deltaw.data.pairs import (
    IGNORED,
    SAMPLE,
    SAMPLED_PAIRS,
    Examples,
    FromStep,
    Pair,
    StepBatches,
    fingerprint,
    held_out,
)
from deltaw.objective import Causal

ARM = Arm("r2-s0", 2, seed=0, alpha=1.0, scaling="alpha/r", lr=1e-3)
COLLATE = Causal(0).collate
WORDS = [f"w{n}" for n in range(40)]


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<end>": 0, **{word: n for n, word in enumerate(WORDS, 1)}}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")


def pairs(count: int) -> list[Pair]:
    """Pair n: a prompt of n + 1 words, a completion of the word n."""
    return [Pair(" ".join(WORDS[: n + 1]), WORDS[n]) for n in range(count)]


def rows(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    return [
        tuple(row[mask.bool()].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


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
    examples, batch = Examples(pairs(size), tokenizer(), 50, True), micro * world * accumulate
    arms = [ARM, replace(ARM, name="r2-s1", seed=1), replace(ARM, name="r2-s0-random", control="random")]
    whole = StepBatches(examples, COLLATE, arms, batch, batch, 10, 0, 1)[step]
    parts = [
        StepBatches(examples, COLLATE, arms, batch, micro, 10, rank, world)[step * accumulate + m]
        for rank in range(world)
        for m in range(accumulate)
    ]
    for k in range(len(arms)):
        together = Counter(row for part in parts for row in rows(part)[k * micro : (k + 1) * micro])
        assert together == Counter(rows(whole)[k * batch : (k + 1) * batch])
    labelled = (whole["labels"] != IGNORED).view(len(arms), -1).sum(1)
    assert all(torch.equal(part["completion_tokens"], labelled) for part in parts)


@given(size=st.integers(3, 30), batch=st.integers(1, 7), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_epoch_shows_every_example_once_in_an_order_of_its_own(size: int, batch: int, seed: int) -> None:
    steps = StepBatches(
        Examples(pairs(size), tokenizer(), 50, True), COLLATE, [replace(ARM, seed=seed)], batch, batch, 2 * size, 0, 1
    )
    seen = [row for step in range(2 * size) for row in rows(steps[step])]
    for epoch in range(2):
        assert len(set(seen[epoch * size : (epoch + 1) * size])) == size


def test_arms_of_one_seed_see_the_same_and_of_two_seeds_another_order() -> None:
    arms = [ARM, replace(ARM, name="r8-s0", rank=8), replace(ARM, name="r2-s1", seed=1)]
    seen = rows(StepBatches(Examples(pairs(30), tokenizer(), 50, True), COLLATE, arms, 6, 6, 1, 0, 1)[0])
    assert seen[:6] == seen[6:12] != seen[12:]


def test_shuffled_completions_are_all_there_and_none_with_its_prompt() -> None:
    control = StepBatches(
        Examples(pairs(30), tokenizer(), 50, True), COLLATE, [replace(ARM, control="shuffled")], 30, 30, 1, 0, 1
    )[0]
    ends = [row[-2] for row in rows(control)]
    assert sorted(ends) == list(range(1, 31))
    assert all(row[-2] != row[-3] for row in rows(control))  # the last word of prompt n is its completion


def test_random_completions_are_as_long_and_of_the_whole_vocabulary_and_a_function_of_seed_and_example() -> None:
    long = [Pair(f"{pair.prompt} {pair.prompt}", pair.prompt) for pair in pairs(30)]
    examples = Examples(long, tokenizer(), 50, True)
    noisy = replace(ARM, control="random")
    true, random, other = (
        [learnt(StepBatches(examples, COLLATE, [arm], 30, 30, 3, 0, 1)[step]) for step in range(3)]
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


@given(size=st.integers(1, 200), words=st.integers(1, 12), cut=st.integers(1, 50))
def test_a_sample_has_enough_pairs_and_512_tokens_are_drawn_however_it_is_cut(size: int, words: int, cut: int) -> None:
    text = [Pair(" ".join(WORDS[n % 20 : n % 20 + words]), WORDS[n % 40]) for n in range(size)]
    sample = Examples(text, tokenizer(), 50, False).sample()
    assert len(sample) == min(size, max(SAMPLED_PAIRS, -(-SAMPLE // (words + 1))))

    def tokens(cut: int) -> torch.Tensor:
        batches = [COLLATE(sample[start : start + cut]) for start in range(0, len(sample), cut)]
        masks = drawn([batch["attention_mask"].bool() for batch in batches])
        assert all(batch["attention_mask"][mask].all() for batch, mask in zip(batches, masks, strict=True))
        return torch.cat([batch["input_ids"][mask] for batch, mask in zip(batches, masks, strict=True)])

    assert len(tokens(cut)) == min(SAMPLE, size * (words + 1))
    assert torch.equal(tokens(cut), tokens(1))


def test_the_completion_and_its_end_are_learnt_and_a_long_prompt_loses_its_beginning() -> None:
    examples = Examples([Pair("w1 w2 w3", "w4 w5"), Pair("w1", "w2 w3 w4 w5 w6 w7")], tokenizer(), 5, True)
    assert examples.example(0, examples.completions[0]) == ([3, 4], [5, 6, 0], [5, 6, 0])
    assert examples.example(1, examples.completions[1]) == ([2], [3, 4, 5, 6], [3, 4, 5, 6])
    assert examples.shortened == 2
    without_end = Examples([Pair("w1", "w2")], tokenizer(), 5, eos=False)
    assert without_end.example(0, without_end.completions[0]) == ([2], [3], [3])


def test_held_out_pairs_are_the_same_each_time_and_not_learnt() -> None:
    learnt, validation = held_out(pairs(30), 7)
    assert (len(validation), sorted(learnt + validation)) == (7, sorted(pairs(30)))
    assert held_out(pairs(30), 7) == (learnt, validation)
    assert fingerprint(learnt) != fingerprint(list(reversed(learnt)))


def test_a_resumed_epoch_keeps_its_length() -> None:
    assert (list(FromStep(3, 6)), len(FromStep(3, 6))) == ([3, 4, 5], 6)
