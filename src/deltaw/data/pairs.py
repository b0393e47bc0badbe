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
from deltaw.data.order import arranged, shuffled
from deltaw.data.packing import packed
from deltaw.errors import UserError
from deltaw.lora.arm import Arm

SAMPLE, SAMPLED_PAIRS = 512, 128  # tokens whose inputs are kept, and pairs that they come from at least
LOOKED_AT = 64  # micro-batches of which padding is counted

Collate = Callable[[list[Example]], dict[str, Tensor]]


def held_out(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the examples to learn, and of `count` to validate on, drawn the same way each time.

    Raises:
        UserError: nothing would be left to learn.
    """
    if count >= size:
        raise UserError(f"data.validation={count} holds out all of {size} examples: give less, or more data")
    order = shuffled(size, 0, -2)
    return np.sort(order[count:]), order[:count]


class Examples:
    """Some of the examples of a corpus.

    Args:
        corpus: all of them.
        chosen: the numbers there of those that are meant; they count from 0 here.
        collate: makes tensors of a list of examples, with a row of each for every one: labels, attention_mask and
            what else the base is given.

    Attributes:
        lengths: tokens of each.
        learnt: tokens of each that are learnt.
    """

    def __init__(self, corpus: Corpus, chosen: NDArray[np.int64], collate: Collate):
        self.corpus, self.chosen, self.collate = corpus, chosen, collate
        prompts, completions, self.learnt = corpus.lengths(chosen).T
        self.lengths = prompts + completions

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Example:
        return self.corpus[int(self.chosen[number])]

    def batches(self, rows: int) -> list[dict[str, Tensor]]:
        """All examples once, `rows` at a time, the shortest first, so that little is padded."""
        order = np.argsort(self.lengths, kind="stable").tolist()
        return [self.collate([self[i] for i in order[at : at + rows]]) for at in range(0, len(order), rows)]

    def sample(self) -> list[Example]:
        """`SAMPLED_PAIRS` examples, or more until there are `SAMPLE` tokens on each side; the same each time."""
        drawn: list[Example] = []
        for number in shuffled(len(self), 0, -3).tolist():
            if len(drawn) >= SAMPLED_PAIRS and self._tokens(drawn) >= SAMPLE:
                break
            drawn.append(self[number])
        return drawn

    def _tokens(self, rows: list[Example]) -> int:
        """How many every layer reads: of an encoder-decoder, the fewer of its two sides."""
        read, written = sum(len(row.prompt) for row in rows), sum(len(row.completion) for row in rows)
        if self.corpus.labels:  # of a classification, which are no tokens
            return read
        return read + written if self.corpus.joined else min(read, written)

    def dealt(self, prompt: int, completion: int) -> Example:
        """The prompt of one example with the completion of another; where they share a length the prompt gives way."""
        start, other = self[prompt].prompt, self[completion]
        room = self.corpus.max_length - len(other.completion) if self.corpus.joined else len(start)
        return other._replace(prompt=start[-room:])

    def noisy(self, number: int, seed: int) -> Example:
        """An example with other tokens where it is learnt, drawn uniformly, and the same for a seed each time."""
        example = self[number]
        drawn = Random(f"{seed} {number}").choices(range(self.corpus.vocabulary), k=len(example.completion))
        both = list(zip(drawn, example.completion, example.labels, strict=True))
        return Example(
            example.prompt,
            [own if label == IGNORED else noise for noise, own, label in both],
            [IGNORED if label == IGNORED else noise for noise, _, label in both],
        )


class StepBatches(Dataset[dict[str, Tensor]]):
    """The micro-batches of a training run, by number: `steps` optimiser steps of `accumulate` micro-batches.

    The examples of an arm at step t depend on its seed, t and the global batch alone: epochs follow one another, each
    in an order of its own, and step t is the t-th cut of `batch` examples, which are of like length (`arranged`), or
    as drawn where they are packed. Ranks and micro-batches share them out. So nothing about the position needs
    saving, and one process sees in a step what several see.

    Args:
        examples: to learn.
        arms: whose rows a batch holds, side by side.
        batch: examples of one arm in an optimiser step, over all ranks and micro-batches.
        micro_batch: examples of one arm in one forward pass of one rank.
        steps: optimiser steps.
        rank: of this process.
        world: number of processes.
        packing: several examples share a row.
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
    ):
        self.examples, self.arms, self.batch, self.micro_batch = examples, arms, batch, micro_batch
        self.rank, self.world, self.accumulate = rank, world, batch // (micro_batch * world)
        self.steps, self.packing = steps, packing
        self.dealt = [_dealt(arm, len(examples)) for arm in arms]
        recent = 2 * len({arm.seed for arm in arms})  # a step may reach into the next epoch
        order = partial(shuffled, len(examples)) if packing else partial(arranged, examples.lengths, batch)
        self._order = lru_cache(maxsize=recent)(order)

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Micro-batch `index`: (K · R, T) tensors, and `completion_tokens` (K,), each arm's count of the step.

        Packed rows are fewer, and as many for every arm.
        """
        step, micro = divmod(index, self.accumulate)
        first = (micro * self.world + self.rank) * self.micro_batch
        arms: list[list[Example]] = []
        totals = []
        for arm, dealt in zip(self.arms, self.dealt, strict=True):
            chosen = self.chosen(arm.seed, step)
            arms.append([self._row(arm, dealt, i) for i in chosen[first : first + self.micro_batch].tolist()])
            totals.append(int(self.examples.learnt[dealt[chosen]].sum()))
        return self._collated(arms) | {"completion_tokens": torch.tensor(totals)}

    def _collated(self, arms: list[list[Example]]) -> dict[str, Tensor]:
        if self.packing:
            return packed(arms, self.examples.corpus.max_length, self.examples.collate)
        return self.examples.collate([example for examples in arms for example in examples])

    def padding(self) -> float:
        """Share of tokens that are padding, in [0, 1), in micro-batches from all over the run."""
        looked_at = range(0, len(self), -(-len(self) // LOOKED_AT))
        masks = [self[index]["attention_mask"] for index in looked_at]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def _row(self, arm: Arm, dealt: NDArray[np.int64], number: int) -> Example:
        if arm.control == "shuffled":
            return self.examples.dealt(number, int(dealt[number]))
        return self.examples.noisy(number, arm.seed) if arm.control == "random" else self.examples[number]

    def chosen(self, seed: int, step: int) -> NDArray[np.int64]:
        """Numbers of the `batch` examples that the arms of a seed learn from at a step."""
        size, first, last = len(self.examples), step * self.batch, (step + 1) * self.batch
        epochs = range(first // size, (last - 1) // size + 1)
        return np.concatenate(
            [self._order(seed, epoch)[max(0, first - epoch * size) : last - epoch * size] for epoch in epochs]
        )


def _dealt(arm: Arm, size: int) -> NDArray[np.int64]:
    """For every prompt, whose completion the arm sees: its own, or for a shuffled control another's."""
    if arm.control != "shuffled":
        return np.arange(size)
    order = shuffled(size, arm.seed, -1)
    return np.roll(order, -1)[np.argsort(order)]


class FromStep(Sampler[int]):
    """Counts from `start` up to `total`; its length stays `total`, which is how Lightning counts a resumed epoch."""

    def __init__(self, start: int, total: int):
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))
