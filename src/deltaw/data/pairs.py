"""Pairs of prompt and completion, tokenised, and the batch of every step as a pure function of its number.

Shapes: K arms, R rows of one arm in a micro-batch, T tokens of the longest row. An arm's rows lie together.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from deltaw.arm import Arm
from deltaw.cli import UserError

IGNORED = -100  # the label that cross-entropy leaves out
SAMPLE, SAMPLED_PAIRS = 512, 128  # tokens whose inputs are kept, and pairs that they come from at least


class Pair(NamedTuple):
    """What an arm reads, and what it learns to write after it."""

    prompt: str
    completion: str


def fingerprint(pairs: list[Pair]) -> str:
    """SHA-256 over all pairs in their order."""
    digest = hashlib.sha256()
    for pair in pairs:
        for text in pair:
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def held_out(pairs: list[Pair], count: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn and `count` to validate on, drawn the same way each time.

    Raises:
        UserError: nothing would be left to learn.
    """
    if count >= len(pairs):
        raise UserError(f"data.validation={count} holds out all of {len(pairs)} pairs: give less, or more data")
    order = _order(len(pairs), 0, -2)
    return [pairs[i] for i in sorted(order[count:])], [pairs[i] for i in order[:count]]


class Examples:
    """Tokenised pairs, at most `max_length` tokens each: a long prompt loses its beginning, then a completion its end.

    An empty prompt becomes the tokenizer's end of text; where `eos` is true a completion ends with it.

    Attributes:
        shortened: how many pairs lost tokens.
        vocabulary: tokens of the tokenizer, without those that were added to it.
    """

    def __init__(self, pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int, eos: bool):
        end = tokenizer.eos_token_id
        if end is None:
            raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no eos_token: name one in its config")
        self.max_length, self.vocabulary = max_length, tokenizer.vocab_size
        prompts = tokenizer([pair.prompt for pair in pairs], verbose=False)["input_ids"]
        completions = tokenizer([pair.completion for pair in pairs], add_special_tokens=False, verbose=False)
        self.prompts: list[list[int]] = [ids or [end] for ids in prompts]
        whole = [[*ids, end] if eos else ids for ids in completions["input_ids"]]
        self.completions = [ids[: max_length - 1] for ids in whole]
        self.shortened = sum(len(p) + len(c) > max_length for p, c in zip(self.prompts, whole, strict=True))

    def __len__(self) -> int:
        return len(self.prompts)

    def batches(self, rows: int) -> list[dict[str, Tensor]]:
        """All examples once, `rows` at a time, the shortest first, so that little is padded."""
        own = (self.row(i, completion) for i, completion in enumerate(self.completions))
        inorder = sorted(own, key=lambda row: len(row[0]))
        return [collate(inorder[start : start + rows]) for start in range(0, len(inorder), rows)]

    def sample(self, rows: int) -> list[dict[str, Tensor]]:
        """`SAMPLE` tokens, or all where there are fewer, as batches that label them alone, `rows` pairs at a time.

        They are drawn from prompts and completions of `SAMPLED_PAIRS` pairs or more, in the same way each time.
        """
        drawn: list[list[int]] = []
        for i in _order(len(self), 0, -3):
            if len(drawn) >= SAMPLED_PAIRS and sum(map(len, drawn)) >= SAMPLE:
                break
            drawn.append(self.row(i, self.completions[i])[0])
        places = [(n, place) for n, ids in enumerate(drawn) for place in range(len(ids))]
        kept = set(Random(0).sample(places, min(SAMPLE, len(places))))
        labelled = [
            (ids, [token if (n, place) in kept else IGNORED for place, token in enumerate(ids)])
            for n, ids in enumerate(drawn)
        ]
        return [collate(labelled[start : start + rows]) for start in range(0, len(labelled), rows)]

    def row(self, prompt: int, completion: list[int]) -> tuple[list[int], list[int]]:
        """Token ids, and labels with the prompt ignored, of one prompt followed by the tokens of a completion."""
        start = self.prompts[prompt][-(self.max_length - len(completion)) :]
        return start + completion, [IGNORED] * len(start) + completion

    def noise(self, example: int, seed: int) -> list[int]:
        """As many tokens as the completion of `example` has, drawn uniformly, and the same for a seed each time."""
        return Random(f"{seed} {example}").choices(range(self.vocabulary), k=len(self.completions[example]))


def collate(rows: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """Rows padded on the right: input_ids, attention_mask and labels, each (rows, T)."""
    longest = max(len(ids) for ids, _ in rows)

    def padded(values: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in values])

    return {
        "input_ids": padded([ids for ids, _ in rows], 0),
        "attention_mask": padded([[1] * len(ids) for ids, _ in rows], 0),
        "labels": padded([labels for _, labels in rows], IGNORED),
    }


class StepBatches(Dataset[dict[str, Tensor]]):
    """The micro-batches of a training run, by number: `steps` optimiser steps of `accumulate` micro-batches.

    The examples of an arm at step t depend on its seed, t and the global batch alone: epochs follow one another, each
    in an order of its own, and step t is the t-th cut of `batch` examples. Ranks and micro-batches share them out.
    So nothing about the position needs saving, and one process sees in a step what several see.

    Args:
        examples: tokenised pairs.
        arms: whose rows a batch holds, side by side.
        batch: examples of one arm in an optimiser step, over all ranks and micro-batches.
        micro_batch: examples of one arm in one forward pass of one rank.
        steps: optimiser steps.
        rank: of this process.
        world: number of processes.
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
    ):
        self.examples, self.arms, self.batch, self.micro_batch = examples, arms, batch, micro_batch
        self.rank, self.world, self.accumulate = rank, world, batch // (micro_batch * world)
        self.steps = steps
        self.dealt = [_dealt(arm, len(examples)) for arm in arms]

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Micro-batch `index`: (K · R, T) tensors, and `completion_tokens` (K,), each arm's count of the step."""
        step, micro = divmod(index, self.accumulate)
        first = (micro * self.world + self.rank) * self.micro_batch
        rows, totals = [], []
        for arm, dealt in zip(self.arms, self.dealt, strict=True):
            chosen = self._chosen(arm.seed, step)
            mine = chosen[first : first + self.micro_batch]
            rows += [self.examples.row(i, self._completion(arm, dealt[i])) for i in mine]
            totals.append(sum(len(self.examples.completions[dealt[i]]) for i in chosen))
        return collate(rows) | {"completion_tokens": torch.tensor(totals)}

    def _completion(self, arm: Arm, example: int) -> list[int]:
        return self.examples.noise(example, arm.seed) if arm.control == "random" else self.examples.completions[example]

    def _chosen(self, seed: int, step: int) -> list[int]:
        places = range(step * self.batch, (step + 1) * self.batch)
        size = len(self.examples)
        return [_order(size, seed, place // size)[place % size] for place in places]


@lru_cache(maxsize=64)
def _order(size: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def _dealt(arm: Arm, size: int) -> list[int]:
    """For every prompt, whose completion the arm sees: its own, or for a shuffled control another's."""
    if arm.control != "shuffled":
        return list(range(size))
    order = _order(size, arm.seed, -1)
    return [order[(place + 1) % size] for place in torch.tensor(order).argsort().tolist()]


class FromStep(Sampler[int]):
    """Counts from `start` up to `total`; its length stays `total`, which is how Lightning counts a resumed epoch."""

    def __init__(self, start: int, total: int):
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))
