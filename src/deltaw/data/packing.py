"""Packing: several examples laid end to end in a row, so that little is padded.

Positions count from 0 in each example; `deltaw.model.packed_attention` keeps attention within an example.

Shapes: R rows of a batch, T tokens of the longest.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from deltaw.data.example import IGNORED, Example


def packed_batch(arms: list[list[Example]], collate: Callable[[list[Example]], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The batch of packed rows, as many for each arm and an arm's together.

    Beside the tensors of `collate`: `position_ids` (R, T) and, if the examples have S signs, `signs` (R, T, S).

    Args:
        arms: the examples of each arm, equally many, each with a prompt.
        collate: makes tensors of rows.
    """
    rows = [row for arm in pack(arms) for row in arm]
    positions = [torch.tensor([n for example in row for n in range(_tokens(example))]) for row in rows]
    batch = collate([_join(row) for row in rows]) | {"position_ids": pad_sequence(positions, batch_first=True)}
    if rows[0][0].signs:
        signs = [torch.tensor([example.signs for example in row for _ in range(_tokens(example))]) for row in rows]
        batch["signs"] = pad_sequence(signs, batch_first=True)
    return batch


def pack(arms: list[list[Example]]) -> list[list[list[Example]]]:
    """The examples of each arm in rows no longer than the longest example: the fewest rows, equally many for each arm.

    A longer row may not fit a model's table of masks or of ALiBi, and attention under a mask computes all pairs of its
    tokens.
    """
    longest = max(_tokens(example) for examples in arms for example in examples)
    fewest = -(-max(sum(map(_tokens, examples)) for examples in arms) // longest)
    counts = range(fewest, len(arms[0]) + 1)  # with a row for each example, none is too long
    attempts = ([_balance(examples, count) for examples in arms] for count in counts)
    return next(rows for rows in attempts if max(sum(map(_tokens, row)) for arm in rows for row in arm) <= longest)


def _balance(examples: list[Example], count: int) -> list[list[Example]]:
    """`count` rows of similar length: the longest example first, each into the row with the fewest tokens so far."""
    rows: list[list[Example]] = [[] for _ in range(count)]
    loads = [0] * count
    for example in sorted(examples, key=_tokens, reverse=True):
        least = loads.index(min(loads))
        rows[least].append(example)
        loads[least] += _tokens(example)
    return rows


def _join(row: list[Example]) -> Example:
    """A row as one example. No token is trained to predict across examples: each begins with a prompt."""
    return Example(
        [],
        [token for example in row for token in example.prompt + example.completion],
        [label for example in row for label in [IGNORED] * len(example.prompt) + example.labels],
    )


def _tokens(example: Example) -> int:
    return len(example.prompt) + len(example.completion)
