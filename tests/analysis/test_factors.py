"""The factors of an arm, and the two matrices whose product is ΔW."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deltaw.analysis.factors import Factors

RANK, D_IN, D_OUT = 3, 9, 7


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors(seed: int, alters_base: bool) -> Factors:
    return Factors(
        A=random(RANK, D_IN, seed=seed),
        B=random(D_OUT, RANK, seed=seed + 1),
        A_start=random(RANK, D_IN, seed=seed + 2),
        B_start=random(D_OUT, RANK, seed=seed + 3) if alters_base else None,
        scale=2.0,
        alters_base=alters_base,
    )


@given(st.integers(0, 2**32), st.booleans())
def test_outer_times_inner_is_what_the_arm_learned(seed: int, alters_base: bool) -> None:
    arm = factors(seed, alters_base)
    assert arm.B is not None and arm.A_start is not None
    start = torch.zeros(D_OUT, RANK).double() if arm.B_start is None else arm.B_start
    assert_close(arm.outer @ arm.inner, arm.B @ arm.A - start @ arm.A_start)


@given(st.integers(0, 2**32), st.booleans())
def test_a_is_a_combination_of_the_rows_of_inner(seed: int, alters_base: bool) -> None:
    arm = factors(seed, alters_base)
    assert_close(arm.A_from_inner @ arm.inner, arm.A)


def test_an_arm_without_a_known_start_has_no_update() -> None:
    assert Factors(random(RANK, D_IN, seed=0), None, None, None, scale=1.0, alters_base=False).update is None


def test_outer_needs_b() -> None:
    with pytest.raises(ValueError, match="B was not read"):
        _ = Factors(random(RANK, D_IN, seed=0), None, None, None, scale=1.0, alters_base=False).outer
