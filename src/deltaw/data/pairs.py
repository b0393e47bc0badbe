"""Pairs of prompt and completion, tokenised, and the batch of every step as a pure function of its number.

Shapes: K arms, R rows of one arm in a micro-batch, T tokens of the longest row. An arm's rows lie together.
"""

import hashlib
from collections.abc import Callable, Iterator
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


class Example(NamedTuple):
    """A pair as tokens.

    Attributes:
        prompt: what is read.
        completion: what is written after it; of a classification the label, as one number.
        labels: as many as `completion` has, `IGNORED` where nothing is to be learnt.
    """

    prompt: list[int]
    completion: list[int]
    labels: list[int]


Collate = Callable[[list[Example]], dict[str, Tensor]]


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
    """Tokenised pairs of at most `max_length` tokens.

    For task "causal" they are those of prompt and completion together: a long prompt loses its beginning, then a
    completion its end. For "seq2seq" each of the two has at most so many and loses its end, and so does the text of
    a "classification", whose completion is a label, as a number.

    An empty prompt becomes the tokenizer's end of text; where `eos` is true a completion ends with it.

    Attributes:
        shortened: how many pairs lost tokens.
        values: how many tokens or labels a completion may consist of: the tokenizer's vocabulary, without what was
            added to it, or the largest label and one.
    """

    def __init__(
        self, pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int, eos: bool, task: str = "causal"
    ):
        end = tokenizer.eos_token_id
        if end is None and task != "classification":
            raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no eos_token: name one in its config")
        self.task, self.max_length = task, max_length
        texts = [pair.prompt for pair in pairs]
        prompts: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
        whole = self._completions(pairs, tokenizer, eos)
        if task == "causal":
            self.prompts = [ids or [end] for ids in prompts]
            self.completions = [ids[: max_length - 1] for ids in whole]
            self.shortened = sum(len(p) + len(c) > max_length for p, c in zip(self.prompts, whole, strict=True))
        else:
            short = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
            self.prompts = [ids or [end or 0] for ids in short]
            self.completions = [ids[:max_length] for ids in whole]
            self.shortened = sum(max(len(p), len(c)) > max_length for p, c in zip(prompts, whole, strict=True))
        labels = task == "classification"
        self.values = max(max(label) for label in whole) + 1 if labels else tokenizer.vocab_size

    def _completions(self, pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, eos: bool) -> list[list[int]]:
        texts = [pair.completion for pair in pairs]
        if self.task == "classification":
            return [[_label(text)] for text in texts]
        end = [tokenizer.eos_token_id] if eos else []
        if self.task == "causal":
            return [ids + end for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
        # An encoder-decoder's tokenizer may begin and end what is written in a way of its own, as BART's does.
        written = tokenizer(text_target=texts, verbose=False)["input_ids"]
        return [ids if ids[-1:] == end else ids + end for ids in written]

    def __len__(self) -> int:
        return len(self.prompts)

    def batches(self, rows: int, collate: Collate) -> list[dict[str, Tensor]]:
        """All examples once, `rows` at a time, the shortest first, so that little is padded."""
        own = (self.example(i, completion) for i, completion in enumerate(self.completions))
        inorder = sorted(own, key=lambda row: len(row.prompt) + len(row.completion))
        return [collate(inorder[start : start + rows]) for start in range(0, len(inorder), rows)]

    def sample(self) -> list[Example]:
        """`SAMPLED_PAIRS` pairs, or more until they have `SAMPLE` tokens on each side, drawn the same way each time."""
        drawn: list[Example] = []
        for i in _order(len(self), 0, -3):
            if len(drawn) >= SAMPLED_PAIRS and self._tokens(drawn) >= SAMPLE:
                break
            drawn.append(self.example(i, self.completions[i]))
        return drawn

    def _tokens(self, rows: list[Example]) -> int:
        read, written = (sum(map(len, side)) for side in ([r.prompt for r in rows], [r.completion for r in rows]))
        return {"causal": read + written, "seq2seq": min(read, written), "classification": read}[self.task]

    def example(self, prompt: int, completion: list[int]) -> Example:
        """One prompt, and the tokens of a completion."""
        room = self.max_length - len(completion) if self.task == "causal" else self.max_length
        return Example(self.prompts[prompt][-room:], completion, completion)

    def noise(self, example: int, seed: int) -> list[int]:
        """As many tokens as the completion of `example` has, drawn uniformly, and the same for a seed each time."""
        return Random(f"{seed} {example}").choices(range(self.values), k=len(self.completions[example]))


def _label(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"the label {text!r} is not a number from 0: give each label one")
    return int(text)


class StepBatches(Dataset[dict[str, Tensor]]):
    """The micro-batches of a training run, by number: `steps` optimiser steps of `accumulate` micro-batches.

    The examples of an arm at step t depend on its seed, t and the global batch alone: epochs follow one another, each
    in an order of its own, and step t is the t-th cut of `batch` examples. Ranks and micro-batches share them out.
    So nothing about the position needs saving, and one process sees in a step what several see.

    Args:
        examples: tokenised pairs.
        collate: makes one batch of rows.
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
        collate: Collate,
        arms: list[Arm],
        batch: int,
        micro_batch: int,
        steps: int,
        rank: int,
        world: int,
    ):
        self.examples, self.collate, self.arms = examples, collate, arms
        self.batch, self.micro_batch = batch, micro_batch
        self.rank, self.world, self.accumulate = rank, world, batch // (micro_batch * world)
        self.steps = steps
        self.dealt = [_dealt(arm, len(examples)) for arm in arms]

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Micro-batch `index`: tensors of K · R rows, and `completion_tokens` (K,), each arm's count of the step."""
        step, micro = divmod(index, self.accumulate)
        first = (micro * self.world + self.rank) * self.micro_batch
        rows, totals = [], []
        for arm, dealt in zip(self.arms, self.dealt, strict=True):
            chosen = self._chosen(arm.seed, step)
            mine = chosen[first : first + self.micro_batch]
            rows += [self.examples.example(i, self._completion(arm, dealt[i])) for i in mine]
            totals.append(sum(len(self.examples.completions[dealt[i]]) for i in chosen))
        return self.collate(rows) | {"completion_tokens": torch.tensor(totals)}

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
