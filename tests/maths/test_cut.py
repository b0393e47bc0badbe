"""Cuts against the SVD of the product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deltaw.maths.cut import cut

seeds, sizes = st.integers(0, 2**32), st.integers(1, 9)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nearest(product: Tensor, k: int) -> Tensor:
    """The matrix of rank k nearest to `product`, by its own SVD."""
    U, values, Vh = torch.linalg.svd(product, full_matrices=False)
    return U[:, :k] * values[:k] @ Vh[:k]


@given(sizes, sizes, sizes, st.integers(1, 12), seeds)
def test_a_cut_is_the_dense_svds_best_approximation(r: int, d_in: int, d_out: int, k: int, seed: int) -> None:
    """Also where the rank is above a width, and where k is above the rank: then the product stays."""
    A, B = random(r, d_in, seed=seed), random(d_out, r, seed=seed + 1)
    A_k, B_k = cut(A, B, k)
    assert len(A_k) == min(k, r, d_in, d_out)
    scale = (B @ A).norm().item()
    assert_close(B_k @ A_k, nearest(B @ A, k), rtol=0, atol=1e-12 * max(scale, 1))
    if k >= r:
        assert_close(B_k @ A_k, B @ A, rtol=0, atol=1e-13 * max(scale, 1))


@given(st.integers(1, 7), seeds)
def test_the_error_is_the_tail_of_the_spectrum(k: int, seed: int) -> None:
    """The theorem of Eckart and Young; the factors share the singular values equally."""
    A, B = random(8, 30, seed=seed), random(20, 8, seed=seed + 1)
    A_k, B_k = cut(A, B, k)
    values = torch.linalg.svdvals(B @ A)
    assert_close((B @ A - B_k @ A_k).norm(), values[k:8].norm())
    assert_close(A_k @ A_k.T, values[:k].diag())
    assert_close(B_k.T @ B_k, values[:k].diag())


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_factors_of_low_rank_keep_their_product(k: int) -> None:
    A, B = random(5, 12, seed=0), random(9, 5, seed=1)
    A[2:] = A[:1] + A[1:2]  # rank 2
    A_k, B_k = cut(A, B, k)
    assert_close(B_k @ A_k, nearest(B @ A, k), rtol=0, atol=1e-12)
    if k >= 2:
        assert_close(B_k @ A_k, B @ A, rtol=0, atol=1e-12)


def test_singular_values_far_apart_are_cut_at_their_place() -> None:
    values = torch.tensor([1e8, 1.0, 1e-6, 1e-7], dtype=torch.float64)
    left, right = (torch.linalg.qr(random(20, 4, seed=seed)).Q for seed in (0, 1))
    A, B = values.sqrt()[:, None] * right.T, left * values.sqrt()
    A_2, B_2 = cut(A, B, 2)
    assert_close(torch.linalg.svdvals(B_2 @ A_2)[:2], values[:2], rtol=1e-7, atol=0)
    assert_close(B_2 @ A_2, left[:, :2] * values[:2] @ right[:, :2].T, rtol=0, atol=1e-12 * 1e8)


def test_a_product_of_zero_stays_zero() -> None:
    A_2, B_2 = cut(random(4, 9, seed=0), torch.zeros(7, 4, dtype=torch.float64), 2)
    assert (A_2.shape, B_2.shape) == ((2, 9), (7, 2)) and not (B_2 @ A_2).any() and A_2.isfinite().all()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_factors_of_fewer_bits_keep_their_dtype(dtype: torch.dtype, error: float) -> None:
    A, B = random(6, 40, seed=0).to(dtype), random(30, 6, seed=1).to(dtype)
    A_k, B_k = cut(A, B, 3)
    assert A_k.dtype is B_k.dtype is dtype
    exact = nearest(B.double() @ A.double(), 3)
    assert (B_k.double() @ A_k.double() - exact).norm() <= error * exact.norm()
