"""φ against the paper's formula, its properties for any two factors, and the `Stack` that computes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from torch import Tensor
from torch.testing import assert_close

from deltaw import similarity
from deltaw.maths.subspace import COLUMNS, Stack, shared, update_directions

WIDTH = 12
ranks = st.integers(1, 6)
seeds = st.integers(0, 2**32)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graded(rank: int, width: int, seed: int, smallest: float = 1e-5) -> Tensor:
    """Singular values from 1 down to `smallest`, each the same fraction of the one before."""
    left, right = (torch.linalg.qr(random(n, rank, seed=seed + n)).Q for n in (rank, width))
    return left * torch.logspace(0, np.log10(smallest), rank, dtype=torch.float64) @ right.T


def cosines(low: Tensor, high: Tensor) -> Tensor:
    """Between the directions of two matrices."""
    stack = Stack({"low": low, "high": high})
    return stack.cosines(stack.directions["low"], stack.directions["high"])


factors = st.builds(lambda rank, seed: random(rank, WIDTH, seed=seed), ranks, seeds)
graded_factors = st.builds(lambda rank, seed: graded(rank, WIDTH, seed), ranks, seeds)
any_factors = factors | graded_factors


@given(any_factors, any_factors)
def test_phi_is_the_papers_formula(low: Tensor, high: Tensor) -> None:
    U, V = (np.linalg.svd(A.numpy())[2].T for A in (low, high))
    phi = similarity(low, high)
    for i in range(1, len(low) + 1):
        for j in range(1, len(high) + 1):
            expected = np.linalg.norm(U[:, :i].T @ V[:, :j], "fro") ** 2 / min(i, j)
            assert_close(phi[i - 1, j - 1].item(), expected, rtol=0, atol=1e-6)


@given(factors, factors)
def test_phi_lies_between_0_and_1_and_is_symmetric_under_swapping_both(low: Tensor, high: Tensor) -> None:
    phi = similarity(low, high)
    assert phi.min() >= 0 and phi.max() <= 1
    assert_close(phi, similarity(high, low).T)


@given(factors, ranks, seeds)
def test_phi_is_1_where_a_span_contains_the_other(high: Tensor, rank: int, seed: int) -> None:
    low = random(min(rank, len(high)), len(high), seed=seed) @ high
    assert_close(similarity(low, high)[:, -1], torch.ones(len(low), dtype=torch.float64))


@given(ranks, ranks, seeds)
def test_phi_is_0_between_orthogonal_spans(rank_low: int, rank_high: int, seed: int) -> None:
    basis = torch.linalg.qr(random(WIDTH, WIDTH, seed=seed)).Q
    low = random(rank_low, 6, seed=seed + 1) @ basis[:6]
    high = random(rank_high, 6, seed=seed + 2) @ basis[6:]
    assert_close(similarity(low, high), torch.zeros(rank_low, rank_high, dtype=torch.float64))


@given(factors, factors, st.floats(1e-3, 1e3), seeds)
def test_phi_ignores_scale_sign_and_row_order(low: Tensor, high: Tensor, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(low), generator=generator)
    signs = 2.0 * torch.randint(2, (len(low), 1), generator=generator) - 1
    assert_close(similarity(scale * signs * low[order], high), similarity(low, high))


@given(factors, factors, seeds)
def test_phi_of_whole_spans_does_not_depend_on_the_rows_that_training_found(
    low: Tensor, high: Tensor, seed: int
) -> None:
    mixing = random(len(low), len(low), seed=seed) + 10 * torch.eye(len(low))  # far from singular
    assert_close(similarity(mixing @ low, high)[-1, -1], similarity(low, high)[-1, -1])


@given(factors, factors, st.integers(0, 5))
def test_phi_is_nan_beyond_the_numerical_rank_and_nowhere_else(low: Tensor, high: Tensor, tiny_rows: int) -> None:
    kept = max(len(low) - tiny_rows, 1)
    deficient = torch.cat([low[:kept], 1e-9 * low[kept:]])
    undefined = similarity(deficient, high).isnan()
    assert undefined[kept:].all() and not undefined[:kept].any()


def test_a_zero_factor_has_no_directions() -> None:
    zero = torch.zeros(3, WIDTH)
    assert len(Stack({"zero": zero}).directions["zero"].values) == 0
    assert similarity(zero, random(2, WIDTH, seed=0)).isnan().all()


def test_a_factor_has_no_more_directions_than_its_width() -> None:
    phi = similarity(random(5, 3, seed=0), random(2, 3, seed=1))
    assert phi.isnan().any(1).tolist() == [False, False, False, True, True]
    assert_close(phi[2], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_factor_that_is_not_finite_is_refused(value: float) -> None:
    broken = random(3, WIDTH, seed=0)
    broken[1, 2] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        Stack({"sound": random(2, WIDTH, seed=1), "broken": broken})


def test_factors_in_half_precision_are_multiplied_in_double() -> None:
    A = random(4, WIDTH, seed=0).bfloat16()
    phi = similarity(A, A)
    assert phi.dtype == torch.float64
    assert_close(phi, torch.ones(4, 4, dtype=torch.float64))


@given(st.integers(1, 3), seeds)
def test_rounding_to_float32_adds_no_directions(rank: int, seed: int) -> None:
    A = (random(6, rank, seed=seed) @ random(rank, WIDTH, seed=seed + 1)).float()
    assert len(Stack({"A": A}).directions["A"].values) == rank


def test_columns_beyond_the_first_slice_count() -> None:
    low, high = (random(3, 2 * COLUMNS + 5, seed=seed) for seed in (0, 1))
    U, V = (np.linalg.svd(A.numpy(), full_matrices=False)[2] for A in (low, high))
    assert_close(similarity(low, high)[-1, -1].item(), np.linalg.norm(U @ V.T) ** 2 / 3)


@given(any_factors)
def test_a_matrix_is_its_coordinates_times_its_directions(X: Tensor) -> None:
    stack = Stack({"axes": torch.eye(WIDTH), "X": X})
    axes, found = stack.directions["axes"], stack.directions["X"]
    D = stack.cosines(found, axes) @ axes.left.T  # in terms of the axes
    assert_close(found.coordinates @ D, X)
    assert_close(D @ D.T, torch.eye(len(X), dtype=torch.float64))


@given(any_factors, ranks, seeds)
def test_the_directions_of_a_product_are_those_of_its_dense_form(X: Tensor, rows: int, seed: int) -> None:
    mixing = random(rows, len(X), seed=seed)
    stack = Stack({"X": X, "product": mixing @ X})
    product, dense = stack.directions["X"].of_product(mixing), stack.directions["product"]
    assert_close(product.values, dense.values[: len(product.values)], rtol=0, atol=1e-9 * float(dense.values[0]))
    angles = shared(stack.cosines(product, dense)).cos2
    assert_close(angles, torch.ones_like(angles))


@given(any_factors, seeds)
def test_the_directions_of_an_update_rebuild_it(A: Tensor, seed: int) -> None:
    B = random(9, len(A), seed=seed)
    inner, outer = Stack({"axes": torch.eye(WIDTH), "A": A}), Stack({"axes": torch.eye(9), "B": B.T})
    V, U = update_directions(inner.directions["A"], outer.directions["B"])
    right = inner.cosines(V, inner.directions["axes"]) @ inner.directions["axes"].left.T
    left = outer.cosines(U, outer.directions["axes"]) @ outer.directions["axes"].left.T
    assert_close((left.T * V.values) @ right, B @ A, rtol=0, atol=3e-6 * float(V.values[0]))  # rounding
    assert_close(V.values, U.values)


@given(any_factors, any_factors)
def test_principal_angles_are_those_of_scipy(low: Tensor, high: Tensor) -> None:
    angles = np.sort(subspace_angles(low.numpy().T, high.numpy().T))
    assert_close(shared(cosines(low, high)).cos2.numpy(), np.cos(angles) ** 2, rtol=0, atol=1e-6)


@given(factors, factors)
def test_first_row_and_corner_are_cells_of_phi(low: Tensor, high: Tensor) -> None:
    found, phi = shared(cosines(low, high)), similarity(low, high)
    assert_close(torch.stack([found.first, found.row, found.corner]), torch.stack([phi[0, 0], phi[0, -1], phi[-1, -1]]))


@pytest.mark.parametrize("as_given", [lambda A: A.numpy(), lambda A: A.numpy()[:, ::-1][:, ::-1], lambda A: A.tolist()])
def test_similarity_takes_what_numpy_takes(as_given: Callable[[torch.Tensor], Any]) -> None:
    low, high = random(3, WIDTH, seed=0), random(5, WIDTH, seed=1)
    phi = similarity(as_given(low), as_given(high))
    assert isinstance(phi, torch.Tensor) and torch.equal(phi, similarity(low, high))


def test_similarity_takes_any_precision_and_byte_order_and_a_parameter() -> None:
    low, high = random(3, WIDTH, seed=0).float(), random(5, WIDTH, seed=1)
    expected = similarity(low, high)
    assert torch.equal(similarity(low.numpy().astype(">f4"), high.clone().requires_grad_()), expected)
    assert not similarity(low.requires_grad_(), high).requires_grad
    whole = (10 * high).round()
    assert torch.equal(similarity(low, whole.int()), similarity(low, whole.numpy().astype(int)))


@pytest.mark.parametrize(
    ("A", "error", "words"),
    [
        (np.ones(4), ValueError, r"A_low has the shape \(4,\): give a matrix"),
        (np.ones((2, 2, 4)), ValueError, r"\(2, 2, 4\)"),
        (np.ones((0, 4)), ValueError, r"\(0, 4\)"),
        (np.ones((5, 3)), ValueError, r"5 × 3 and 2 × 4, of different widths: give rank × width of one base"),
        (np.ones((2, 9)), ValueError, r"2 × 9 and 2 × 4, of different widths: give A.T if"),
        ("path/to/adapter", TypeError, "A_low is str of"),
        (np.ones((2, 4), complex), TypeError, "complex128: give a matrix of real numbers"),
        (torch.ones(2, 4, dtype=torch.bool), TypeError, "bool: give a matrix of real numbers"),
        (np.full((2, 4), np.nan), ValueError, "NaN or infinity"),
    ],
)
def test_what_is_no_factor_is_refused_by_its_name(A: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        similarity(A, np.ones((2, 4)))
