"""Packing: examples laid end to end in few rows; `deltaw.model.packed_attention` keeps them apart.

Positions count from 0 in every example, R rows of a batch, T tokens of the longest.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from deltaw.data.example import IGNORED, Example


def packed(
    arms: list[list[Example]], max_length: int, collate: Callable[[list[Example]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The batch of packed rows, those of an arm together and as many of every arm, with `position_ids` (R, T).

    Args:
        arms: the examples of each, as many of every one, with a prompt and of at most `max_length` tokens.
        max_length: tokens of the longest row.
        collate: makes tensors of rows.
    """
    rows = [row for arm in laid_out(arms, max_length) for row in arm]
    positions = [torch.tensor([n for example in row for n in range(_tokens(example))]) for row in rows]
    return collate([_joined(row) for row in rows]) | {"position_ids": pad_sequence(positions, batch_first=True)}


def laid_out(arms: list[list[Example]], max_length: int) -> list[list[list[Example]]]:
    """The examples of each arm in rows: the fewest, as many for every arm, of which none is above `max_length`.

    A row that is longer than every example may be longer than a model's table of masks or of ALiBi.
    """
    fewest = -(-max(sum(map(_tokens, examples)) for examples in arms) // max_length)
    counts = range(fewest, len(arms[0]) + 1)  # with a row for every example, none is too long
    tried = ([_balanced(examples, count) for examples in arms] for count in counts)
    return next(laid for laid in tried if max(sum(map(_tokens, row)) for arm in laid for row in arm) <= max_length)


def _balanced(examples: list[Example], count: int) -> list[list[Example]]:
    """`count` rows of about one length: the longest example first, each to the row with the fewest tokens so far."""
    rows: list[list[Example]] = [[] for _ in range(count)]
    loads = [0] * count
    for example in sorted(examples, key=_tokens, reverse=True):
        least = loads.index(min(loads))
        rows[least].append(example)
        loads[least] += _tokens(example)
    return rows


def _joined(row: list[Example]) -> Example:
    """A row as one example. None predicts the first token of the next: that is of a prompt, and not learnt."""
    return Example(
        [],
        [token for example in row for token in example.prompt + example.completion],
        [label for example in row for label in [IGNORED] * len(example.prompt) + example.labels],
    )


def _tokens(example: Example) -> int:
    return len(example.prompt) + len(example.completion)
