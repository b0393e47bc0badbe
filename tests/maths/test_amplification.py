"""Table 7 and Figure 8, against dense SVDs and the paper's numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deltaw.maths.amplification import FrozenWeight

D_OUT, D_IN = 20, 16
ranks = st.integers(1, 6)
seeds = st.integers(0, 2**32)
SMALLEST = st.sampled_from([1.0, 1e-2, 1e-5])  # singular value of a factor whose largest is 1


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graded(rank: int, width: int, smallest: float, seed: int) -> Tensor:
    left, right = (torch.linalg.qr(random(n, rank, seed=seed + n)).Q for n in (rank, width))
    return left * torch.logspace(0, np.log10(smallest), rank, dtype=torch.float64) @ right.T


W = random(D_OUT, D_IN, seed=0) * 0.8 ** torch.arange(D_IN)
FROZEN = FrozenWeight(W, count=8)


@given(ranks, SMALLEST, seeds)
def test_the_part_of_w_in_the_updates_directions_agrees_with_dense_svds(rank: int, smallest: float, seed: int) -> None:
    A, B = graded(rank, D_IN, smallest, seed), graded(rank, D_OUT, smallest, seed + 1).T
    U, values, Vh = np.linalg.svd((2.5 * B @ A).numpy())
    k = int((values > 1e-6 * values[0]).sum())
    row = FROZEN.amplification(A, B, scale=2.5)
    by_update = np.linalg.norm(U[:, :k].T @ W.numpy() @ Vh[:k].T)
    assert row.by_update == pytest.approx(by_update, rel=1e-6)
    assert row.norm_update == pytest.approx(np.linalg.norm(values))
    assert row.factor == pytest.approx(np.linalg.norm(values) / by_update, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_of_less_precision_are_multiplied_in_double(dtype: torch.dtype) -> None:
    A, B = random(3, D_IN, seed=1).to(dtype), random(D_OUT, 3, seed=2).to(dtype)
    assert FROZEN.amplification(A, B, scale=1.0) == FROZEN.amplification(A.double(), B.double(), scale=1.0)


@given(ranks, seeds)
def test_the_part_of_w_in_its_leading_directions_is_that_of_dense_svds(rank: int, seed: int) -> None:
    row = FROZEN.amplification(random(rank, D_IN, seed=seed), random(D_OUT, rank, seed=seed + 1), scale=1.0)
    values = np.linalg.svd(W.numpy(), compute_uv=False)
    assert row.by_W == pytest.approx(np.linalg.norm(values[:rank]))
    assert row.norm_W == pytest.approx(np.linalg.norm(values))


@given(ranks, SMALLEST, seeds)
def test_no_directions_hold_more_of_w_than_its_leading_ones(rank: int, smallest: float, seed: int) -> None:
    A, B = graded(rank, D_IN, smallest, seed), graded(rank, D_OUT, smallest, seed + 1).T
    row = FROZEN.amplification(A, B, scale=1.0)
    assert row.by_update <= row.by_W * (1 + 1e-9) and row.by_random <= row.by_W


def test_an_update_along_w_holds_as_much_as_its_leading_directions() -> None:
    U, values, Vh = torch.linalg.svd(W, full_matrices=False)
    row = FROZEN.amplification(values[:4, None] * Vh[:4], U[:, :4], scale=3.0)
    assert row.by_update == pytest.approx(row.by_W)
    assert row.factor == pytest.approx(3)


@given(ranks, seeds)
def test_a_refactored_copy_has_the_same_amplification(rank: int, seed: int) -> None:
    A, B = random(rank, D_IN, seed=seed), random(D_OUT, rank, seed=seed + 1)
    G = random(rank, rank, seed=seed + 2) + 4 * torch.eye(rank)
    one, other = FROZEN.amplification(A, B, 2.0), FROZEN.amplification(torch.linalg.inv(G) @ A, B @ G, 2.0)
    assert one.by_update == pytest.approx(other.by_update, rel=1e-6)
    assert one.factor == pytest.approx(other.factor, rel=1e-6)


def test_an_update_of_zero_amplifies_nothing() -> None:
    row = FROZEN.amplification(random(3, D_IN, seed=1), torch.zeros(D_OUT, 3), scale=1.0)
    assert row.norm_update == row.by_update == row.by_W == row.by_random == row.by_random_closed == 0
    assert np.isnan(row.factor)


@given(st.integers(1, 3), st.integers(0, 3), seeds)
def test_all_columns_are_about_as_many_directions_as_the_update_has(k: int, more: int, seed: int) -> None:
    A, B = random(k, D_IN, seed=seed), random(D_OUT, k, seed=seed + 1)
    mixing = random(k, k + more, seed=seed + 2)
    deficient = FROZEN.amplification(random(k + more, k, seed=seed + 3) @ A, B @ mixing, scale=2.0)
    plain = FROZEN.amplification(A, B, scale=2.0)
    for name in ("by_W", "by_random", "by_random_closed"):
        assert getattr(deficient, name) == getattr(plain, name)
    U, V = (torch.linalg.svd(X).U[:, :k] for X in (B, A.T))
    assert deficient.by_update == pytest.approx(float(torch.linalg.norm(U.T @ W @ V)), rel=1e-6)


# The paper has ‖W_q‖ = 61.95 and d = 12288; here ‖W‖ and d are 64 times smaller.
@pytest.mark.parametrize(("r", "expected"), [(4, 0.0202), (64, 0.3227)])
def test_the_closed_form_gives_the_papers_random_column(r: int, expected: float) -> None:
    d = 192
    W = random(d, d, seed=0)
    frozen = FrozenWeight(W * (61.95 * d / 12288 / W.norm()), count=r)
    row = frozen.amplification(random(r, d, seed=1), random(d, r, seed=2), scale=1.0)
    assert row.by_random_closed == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("d_out", "d_in", "r"), [(200, 200, 4), (200, 120, 16)])
def test_the_closed_form_agrees_with_random_directions(d_out: int, d_in: int, r: int) -> None:
    W = random(d_out, d_in, seed=0) * 0.97 ** torch.arange(d_in)
    row = FrozenWeight(W, count=r).amplification(random(r, d_in, seed=1), random(d_out, r, seed=2), scale=1.0)
    U, V = (torch.linalg.qr(random(400, d, r, seed=d + 3)).Q for d in (d_out, d_in))
    squares = torch.linalg.matrix_norm(U.mT @ W @ V).square().numpy()
    assert row.by_random_closed**2 == pytest.approx(squares.mean(), abs=4 * squares.std() / 400**0.5)
    assert row.by_random**2 == pytest.approx(squares.mean(), abs=4 * squares.std() / 10**0.5)


@given(st.integers(1, 6), SMALLEST, seeds)
def test_phi_between_w_and_a_factor_agrees_with_dense_svds(rank: int, smallest: float, seed: int) -> None:
    A = graded(rank, D_IN, smallest, seed) * (1 if smallest < 1 else 0.5 ** torch.arange(D_IN))
    U, V = (np.linalg.svd(X.numpy())[2].T for X in (W, A))
    phi = FROZEN.similarity(A)
    assert phi.shape == (8, rank)
    for i in range(1, 9):
        for j in range(1, rank + 1):
            expected = np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2 / min(i, j)
            assert_close(phi[i - 1, j - 1].item(), expected, rtol=0, atol=1e-6)


def test_directions_that_w_lacks_have_no_phi() -> None:
    deficient = FrozenWeight(random(D_OUT, 3, seed=1) @ random(3, D_IN, seed=2), count=5)
    assert deficient.similarity(random(2, D_IN, seed=3)).isnan().all(1).tolist() == [False] * 3 + [True] * 2


def test_a_layer_may_have_fewer_outputs_than_inputs() -> None:
    narrow = FrozenWeight(W.T[:4], count=4)
    row = narrow.amplification(random(4, D_OUT, seed=1), random(4, 4, seed=2), scale=1.0)
    assert row.by_W == pytest.approx(row.norm_W)
