"""What transformers is told of the examples in a row is what it would find out."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import masking_utils

from deltaw.model.examples_in_rows import examples_in_rows

LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@given(rows=st.lists(LENGTHS, min_size=1, max_size=3))
def test_packed_rows_have_the_examples_that_transformers_finds(rows: list[list[int]]) -> None:
    """Each token of padding is an example of its own."""
    width = max(map(sum, rows)) + 1
    positions = torch.tensor([[n for length in row for n in range(length)] + [0] * (width - sum(row)) for row in rows])
    found = masking_utils.find_packed_sequence_indices(positions)
    with examples_in_rows(packed=True):
        told = masking_utils.find_packed_sequence_indices(positions)
    assert found is not None and told is not None
    assert torch.equal(told[:, None] == told[:, :, None], found[:, None] == found[:, :, None])


def test_other_rows_hold_one_example_and_transformers_is_left_as_it_was() -> None:
    original, positions = masking_utils.find_packed_sequence_indices, torch.arange(5).expand(2, -1)
    with examples_in_rows(packed=False):
        assert masking_utils.find_packed_sequence_indices(positions) is None
    assert masking_utils.find_packed_sequence_indices is original
    assert original(positions) is None
