"""The batch of every step as a pure function of its number.

Shapes: K arms, R rows of one arm in a micro-batch, T tokens of the longest row. An arm's rows lie together.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from deltaw.data.corpus import Corpus
from deltaw.data.example import IGNORED, Example
from deltaw.data.order import dealt, permutation, stratified
from deltaw.data.packing import packed_batch
from deltaw.lora.arm import Arm
from deltaw.lora.shadows import sign_of
from deltaw.run.record import name_of_shadow

PADDING_SAMPLE = 64  # micro-batches whose padding is counted, or all of one step

Collate = Callable[[list[Example]], dict[str, Tensor]]


class Examples:
    """Some of the examples of a corpus, counted from 0.

    Args:
        corpus: all examples.
        chosen: the numbers in the corpus of those to take.
        collate: makes tensors of a list of examples, a row for each: labels, attention_mask and whatever else the
            base reads.

    Attributes:
        lengths: tokens of each example.
        learnt: learnt tokens of each example.
    """

    def __init__(self, corpus: Corpus, chosen: NDArray[np.int64], collate: Collate):
        self.corpus, self.chosen, self.collate = corpus, chosen, collate
        prompts, completions, self.learnt = corpus.lengths(chosen).T
        self.lengths = prompts + completions

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Example:
        return self.corpus[int(self.chosen[number])]

    def batches(self, rows: int) -> list[tuple[NDArray[np.int64], dict[str, Tensor]]]:
        """All examples once, `rows` at a time, sorted by length so that little is padded.

        With each batch come the numbers in the corpus of the examples in its rows.
        """
        order = np.argsort(self.lengths, kind="stable")
        parts = [order[at : at + rows] for at in range(0, len(order), rows)]
        return [(self.chosen[part], self.collate([self[i] for i in part.tolist()])) for part in parts]

    def with_completion_of(self, number: int, other: int) -> Example:
        """An example with the completion of another; where both share one length, the prompt is cut to fit."""
        example, donor = self[number], self[other]
        room = self.corpus.max_length - len(donor.completion) if self.corpus.joined else len(example.prompt)
        return example._replace(prompt=example.prompt[-room:], completion=donor.completion, labels=donor.labels)

    def with_random_completion(self, number: int, seed: int) -> Example:
        """An example whose learnt tokens are replaced by uniform draws, which depend on `number` and `seed` alone."""
        example = self[number]
        noise = Random(f"{seed} {number}").choices(range(self.corpus.vocabulary), k=len(example.completion))
        columns = list(zip(noise, example.completion, example.labels, strict=True))
        return example._replace(
            completion=[token if label == IGNORED else random for random, token, label in columns],
            labels=[IGNORED if label == IGNORED else random for random, _, label in columns],
        )


class StepBatches(Dataset[dict[str, Tensor]]):
    """The micro-batches of a training run, by number: `steps` optimiser steps of `accumulate` micro-batches.

    The examples of an arm at step t depend on its seed, t and the global batch alone: epochs follow one another, each
    in an order of its own (`stratified`), and step t takes the t-th `batch` examples. So a checkpoint saves no
    position, and one process sees in a step what several processes see. Micro-batches and ranks share the examples out
    by length: where each has a row of its own, like lengths lie together, so that little is padded although a step
    learns from examples of all lengths; packed ones are dealt out, so that each process computes about as many tokens.

    Args:
        examples: to learn.
        arms: whose rows a batch holds, side by side.
        batch: examples of one arm in an optimiser step, over all ranks and micro-batches.
        micro_batch: examples of one arm in one forward pass of one rank.
        steps: optimiser steps.
        rank: of this process.
        world: number of processes.
        packing: whether several examples share a row.
        shadows: shadows of each arm of the task.
    """

    def __init__(
        self,
        examples: Examples,
        arms: list[Arm],
        batch: int,
        micro_batch: int,
        steps: int,
        rank: int,
        world: int,
        packing: bool = False,
        shadows: int = 0,
    ):
        self.examples, self.arms, self.batch, self.micro_batch = examples, arms, batch, micro_batch
        self.rank, self.world, self.accumulate = rank, world, batch // (micro_batch * world)
        self.steps, self.packing, self.shadows = steps, packing, shadows
        self.completions = [_completions(arm, len(examples)) for arm in arms]
        recent = 2 * len({arm.seed for arm in arms})  # a step may reach into the next epoch
        self._order = lru_cache(maxsize=recent)(partial(stratified, examples.lengths, batch))

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Micro-batch `index`: (K · R, T) tensors, and `completion_tokens` (K,), each arm's count in the whole step.

        With S shadows also `signs`, (K · R, 1, S), or (K · R, T, S) in packed rows. Packed rows are fewer, and equally
        many for each arm.
        """
        step, micro = divmod(index, self.accumulate)
        return self._part(step, micro * self.world + self.rank)

    def _part(self, step: int, part: int) -> dict[str, Tensor]:
        """One of the micro-batches into which all processes share out a step."""
        first = part * self.micro_batch
        rows: list[list[Example]] = []
        totals = []
        for arm, completions in zip(self.arms, self.completions, strict=True):
            numbers, epochs = self.drawn(arm.seed, step)
            mine = zip(numbers.tolist()[first:][: self.micro_batch], epochs.tolist()[first:], strict=False)
            rows.append([self._row(arm, completions, *drawn) for drawn in mine])
            totals.append(int(self.examples.learnt[completions[numbers]].sum()))
        return self._collate(rows) | {"completion_tokens": torch.tensor(totals)}

    def _collate(self, arms: list[list[Example]]) -> dict[str, Tensor]:
        if self.packing:
            return packed_batch(arms, self.examples.collate, self.examples.corpus.max_length)
        rows = [example for examples in arms for example in examples]
        signs = {"signs": torch.tensor([row.signs for row in rows])[:, None]} if self.shadows else {}
        return self.examples.collate(rows) | signs

    def padding(self) -> float:
        """Share of tokens that are padding, in [0, 1), in whole steps from all over the run, of all processes."""
        parts = range(self.accumulate * self.world)  # of unlike lengths, and so of unlike padding
        wanted = max(1, PADDING_SAMPLE // len(parts))
        sampled = range(0, self.steps, -(-self.steps // wanted))
        masks = [self._part(step, part)["attention_mask"] for step in sampled for part in parts]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def _row(self, arm: Arm, completions: NDArray[np.int64], number: int, epoch: int) -> Example:
        if arm.control == "shuffled":
            example = self.examples.with_completion_of(number, int(completions[number]))
        elif arm.control == "random":
            example = self.examples.with_random_completion(number, arm.seed)
        else:
            example = self.examples[number]
        shadows = range(1, self.shadows + 1)
        signs = [0 if arm.control else sign_of(name_of_shadow(arm.name, n), number, epoch) for n in shadows]
        return example._replace(signs=tuple(signs))

    def drawn(self, seed: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The `batch` examples that the arms of a seed learn from at a step: numbers, and epochs.

        One micro-batch follows another: by length, or dealt out if packed.
        """
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, within = np.divmod(places, len(self.examples))
        orders = {epoch: self._order(seed, epoch) for epoch in dict.fromkeys(epochs.tolist())}
        numbers = np.array([orders[epoch][at] for epoch, at in zip(epochs.tolist(), within.tolist(), strict=True)])
        order = np.argsort(self.examples.lengths[numbers], kind="stable")
        if self.packing:
            order = dealt(order, self.batch // self.micro_batch)
        return numbers[order], epochs[order]


def _completions(arm: Arm, size: int) -> NDArray[np.int64]:
    """For each prompt, the number of the example whose completion the arm sees: the same, or if shuffled another."""
    if arm.control != "shuffled":
        return np.arange(size)
    order = permutation(size, arm.seed, -1)
    return np.roll(order, -1)[np.argsort(order)]


class FromStep(Sampler[int]):
    """Counts from `start` up to `total`; its length stays `total`, because Lightning counts a resumed epoch so."""

    def __init__(self, start: int, total: int):
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))
