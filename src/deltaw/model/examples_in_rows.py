"""Tell transformers how many examples lie in a row, so that it does not ask the device."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Int
from torch import Tensor
from transformers import masking_utils


@contextmanager
def examples_in_rows(packed: bool) -> Iterator[None]:
    """In this block, transformers' masks take each row for one example or, if `packed`, each run of rising positions.

    By itself, transformers reads the positions back from the device in every forward pass to find out, and the device
    stands still until the first layer is launched.
    """
    original = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = _runs if packed else _one
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = original


def _runs(position_ids: Int[Tensor, "rows tokens"]) -> Int[Tensor, "rows tokens"]:
    """The number of each token's example in its row, whose positions count from 0."""
    return (position_ids == 0).cumsum(1)


def _one(position_ids: Int[Tensor, "rows tokens"]) -> None:
    return None
