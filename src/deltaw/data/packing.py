"""Packing: several examples laid end to end in a row, so that little is padded.

Positions count from 0 in each example; `deltaw.model.packed_attention` keeps attention within an example.

Shapes: R rows of a batch, T tokens of the longest.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from deltaw.data.example import IGNORED, Example

STRETCH = 1.25  # times the longest example of a batch is a row at most: attention computes all pairs of its tokens
ATTEMPTS = 16  # lengths of a row that are tried


def packed_batch(
    arms: list[list[Example]], collate: Callable[[list[Example]], dict[str, Tensor]], limit: int
) -> dict[str, Tensor]:
    """The batch of packed rows, as many for each arm and an arm's together.

    Beside the tensors of `collate`: `position_ids` (R, T) and, if the examples have S signs, `signs` (R, T, S).

    Args:
        arms: the examples of each arm, equally many, each with a prompt.
        collate: makes tensors of rows.
        limit: tokens of a row, unless an example is longer.
    """
    rows = [row for arm in pack(arms, limit) for row in arm]
    positions = [torch.tensor([n for example in row for n in range(_tokens(example))]) for row in rows]
    batch = collate([_join(row) for row in rows]) | {"position_ids": pad_sequence(positions, batch_first=True)}
    if rows[0][0].signs:
        signs = [torch.tensor([example.signs for example in row for _ in range(_tokens(example))]) for row in rows]
        batch["signs"] = pad_sequence(signs, batch_first=True)
    return batch


def pack(arms: list[list[Example]], limit: int) -> list[list[list[Example]]]:
    """The examples of each arm in rows, equally many for each arm, so that the fewest tokens are computed.

    Args:
        arms: the examples of each arm, equally many.
        limit: tokens of a row, above which a model's table of masks or of ALiBi may end.
    """
    longest = max(_tokens(example) for examples in arms for example in examples)
    lengths = range(longest, max(longest, min(limit, int(STRETCH * longest))) + 1)
    attempts = ([_fill(examples, length) for examples in arms] for length in lengths[:: -(-len(lengths) // ATTEMPTS)])
    fullest = min(attempts, key=lambda arms: max(map(len, arms)) * max(_load(row) for rows in arms for row in rows))
    return [_divided(rows, max(map(len, fullest))) for rows in fullest]


def _fill(examples: list[Example], length: int) -> list[list[Example]]:
    """Rows of at most `length` tokens: the longest example first, each into the fullest row that has room for it."""
    rows: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=_tokens, reverse=True):
        fitting = [place for place, left in enumerate(room) if left >= _tokens(example)]
        if fitting:
            place = min(fitting, key=room.__getitem__)
        else:
            place = len(rows)
            rows.append([])
            room.append(length)
        rows[place].append(example)
        room[place] -= _tokens(example)
    return rows


def _divided(rows: list[list[Example]], count: int) -> list[list[Example]]:
    """The rows, of which some give up examples until there are `count`."""
    while len(rows) < count:
        rows = [*rows, [max(rows, key=len).pop()]]
    return rows


def _join(row: list[Example]) -> Example:
    """A row as one example. No token is trained to predict across examples: each begins with a prompt."""
    return Example(
        [],
        [token for example in row for token in example.prompt + example.completion],
        [label for example in row for label in [IGNORED] * len(example.prompt) + example.labels],
    )


def _load(row: list[Example]) -> int:
    return sum(map(_tokens, row))


def _tokens(example: Example) -> int:
    return len(example.prompt) + len(example.completion)
