"""φ against the paper's formula, and what must hold of it for any two factors."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deltaw import similarity
from deltaw.subspace import row_basis

WIDTH = 12
ranks = st.integers(1, 6)
seeds = st.integers(0, 2**32)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


factors = st.builds(lambda rank, seed: random(rank, WIDTH, seed=seed), ranks, seeds)


@given(factors, factors)
def test_is_the_papers_formula(low: Tensor, high: Tensor) -> None:
    U, V = (np.linalg.svd(A.numpy())[2].T for A in (low, high))
    phi = similarity(low, high)
    for i in range(1, len(low) + 1):
        for j in range(1, len(high) + 1):
            expected = np.linalg.norm(U[:, :i].T @ V[:, :j], "fro") ** 2 / min(i, j)
            assert_close(phi[i - 1, j - 1].item(), expected)


@given(factors, factors)
def test_lies_between_0_and_1_and_is_symmetric_under_swapping_both(low: Tensor, high: Tensor) -> None:
    phi = similarity(low, high)
    assert phi.min() >= 0 and phi.max() <= 1
    assert_close(phi, similarity(high, low).T)


@given(factors, ranks, seeds)
def test_is_1_where_a_span_contains_the_other(high: Tensor, rank: int, seed: int) -> None:
    low = random(min(rank, len(high)), len(high), seed=seed) @ high
    assert_close(similarity(low, high)[:, -1], torch.ones(len(low), dtype=torch.float64))


@given(ranks, ranks, seeds)
def test_is_0_between_orthogonal_spans(rank_low: int, rank_high: int, seed: int) -> None:
    basis = torch.linalg.qr(random(WIDTH, WIDTH, seed=seed)).Q
    low = random(rank_low, 6, seed=seed + 1) @ basis[:6]
    high = random(rank_high, 6, seed=seed + 2) @ basis[6:]
    assert_close(similarity(low, high), torch.zeros(rank_low, rank_high, dtype=torch.float64))


@given(factors, factors, st.floats(1e-3, 1e3), seeds)
def test_is_blind_to_scale_sign_and_row_order(low: Tensor, high: Tensor, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(low), generator=generator)
    signs = 2.0 * torch.randint(2, (len(low), 1), generator=generator) - 1
    assert_close(similarity(scale * signs * low[order], high), similarity(low, high))


@given(factors, factors, seeds)
def test_whole_spans_do_not_depend_on_the_basis_that_training_found(low: Tensor, high: Tensor, seed: int) -> None:
    mixing = random(len(low), len(low), seed=seed) + 10 * torch.eye(len(low))  # far from singular
    assert_close(similarity(mixing @ low, high)[-1, -1], similarity(low, high)[-1, -1])


@given(factors, factors, st.integers(0, 5))
def test_is_nan_beyond_the_numerical_rank_and_nowhere_else(low: Tensor, high: Tensor, lost: int) -> None:
    kept = max(len(low) - lost, 1)
    deficient = torch.cat([low[:kept], 1e-9 * low[kept:]])
    undefined = similarity(deficient, high).isnan()
    assert undefined[kept:].all() and not undefined[:kept].any()


def test_a_zero_factor_has_no_directions() -> None:
    assert row_basis(torch.zeros(3, WIDTH)).isnan().all()


def test_a_factor_of_higher_rank_than_its_width_has_no_more_directions_than_that() -> None:
    assert row_basis(random(5, 3, seed=0)).isnan().any(1).tolist() == [False, False, False, True, True]


def test_takes_half_precision_and_counts_in_double() -> None:
    A = random(4, WIDTH, seed=0).bfloat16()
    phi = similarity(A, A)
    assert phi.dtype == torch.float64
    assert_close(phi, torch.ones(4, 4, dtype=torch.float64))
