"""Inner products of two updates, from their decompositions, against dense matrices."""

from dataclasses import astuple
from math import isnan, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deltaw.maths.merge import Products, deviation
from deltaw.maths.merge import products as products_of

D_OUT, D_IN = 14, 18
ranks, seeds = st.integers(1, 5), st.integers(0, 2**32)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors(rank: int, seed: int) -> tuple[Tensor, Tensor]:
    return random(rank, D_IN, seed=seed), random(D_OUT, rank, seed=seed + 1)


def decomposed(update: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    kept = S / S.max() > 1e-10
    return U[:, kept], S[kept], Vh[kept]


def products(A: Tensor, B: Tensor, A_other: Tensor, B_other: Tensor) -> Products:
    """From the decompositions of both products; a value of 0 has no direction."""
    (U, S, V), (P, T, W) = decomposed(B @ A), decomposed(B_other @ A_other)
    return products_of(S, T, V @ W.T, U.T @ P)


def dense(A: Tensor, B: Tensor) -> list[list[float]]:
    """B A by plain loops."""
    return [[sum(B[o, k].item() * A[k, i].item() for k in range(len(A))) for i in range(D_IN)] for o in range(D_OUT)]


@given(ranks, ranks, seeds)
def test_products_are_those_of_dense_matrices(rank: int, other: int, seed: int) -> None:
    one, two = factors(rank, seed), factors(other, seed + 2)
    first, second = dense(*one), dense(*two)

    def between(x: list[list[float]], y: list[list[float]]) -> float:
        return sum(a * b for row, line in zip(x, y, strict=True) for a, b in zip(row, line, strict=True))

    def times(x: list[list[float]], y: list[list[float]]) -> float:
        """‖X Yᵀ‖²."""
        return sum(sum(a * b for a, b in zip(row, line, strict=True)) ** 2 for row in x for line in y)

    def turned(x: list[list[float]]) -> list[list[float]]:
        return [list(column) for column in zip(*x, strict=True)]

    found = products(*one, *two)
    inner = (between(first, second), between(first, first), between(second, second))
    fourth = (times(second, first), times(turned(second), turned(first)), times(first, first), times(second, second))
    assert astuple(found) == pytest.approx((*inner, *fourth), rel=1e-9, abs=1e-9)
    assert found.cosine == pytest.approx(inner[0] / sqrt(inner[1] * inner[2]), abs=1e-12)
    assert found.norm_ratio == pytest.approx(sqrt(inner[2] / inner[1]))


@given(ranks, ranks, seeds)
def test_overlaps_and_effects_are_those_of_singular_vectors(rank: int, other: int, seed: int) -> None:
    one, two = factors(rank, seed), factors(other, seed + 2)
    (U, S, V), (P, T, W) = (torch.linalg.svd(B @ A, full_matrices=False) for A, B in (one, two))
    share, share_other = S**2 / (S**2).sum(), T**2 / (T**2).sum()
    found = products(*one, *two)
    assert found.overlap_input == pytest.approx(float(share @ (V @ W.T) ** 2 @ share_other))
    assert found.overlap_output == pytest.approx(float(share @ (U.T @ P) ** 2 @ share_other))
    assert found.ranks == pytest.approx((float(1 / (share @ share)), float(1 / (share_other @ share_other))))
    inputs = V.T * S @ U.T  # ΔW₁ᵀ: one input for each unit vector z
    sizes = [float((B @ A @ inputs).norm()) for A, B in (one, two)]
    assert found.effects[0] == pytest.approx(sizes[1] / sizes[0])
    assert found.effects[0] == pytest.approx(found.norm_ratio * sqrt(found.overlap_input * found.ranks[0]))
    assert products(*two, *one).effects == pytest.approx(found.effects[::-1])


@given(ranks, seeds, st.floats(0.01, 100))
def test_a_multiple_does_so_many_times_as_much(rank: int, seed: int, scale: float) -> None:
    A, B = factors(rank, seed)
    assert products(A, B, A, -scale * B).effects == pytest.approx((scale, 1 / scale))


@pytest.mark.parametrize(("rank", "other"), [(1, 1), (2, 5), (D_OUT, 3)])
def test_random_directions_overlap_by_chance_with_the_exact_deviation(rank: int, other: int) -> None:
    (A, B), two = factors(rank, 0), factors(other, 2)
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(4000):
        Q, R = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=draw, dtype=torch.float64))
        found.append(products(A @ (Q * R.diagonal().sign()), B, *two))
    overlaps = torch.tensor([one.overlap_input for one in found])
    expected = deviation(D_IN, *found[0].ranks)
    assert overlaps.std() == pytest.approx(expected, rel=0.06)
    assert overlaps.mean() == pytest.approx(1 / D_IN, abs=4 * expected / sqrt(len(found)))


@given(ranks, ranks, seeds)
def test_the_cosine_is_symmetric_and_turns_with_b(rank: int, other: int, seed: int) -> None:
    (A, B), (A_other, B_other) = factors(rank, seed), factors(other, seed + 2)
    cosine = products(A, B, A_other, B_other).cosine
    assert products(A_other, B_other, A, B).cosine == pytest.approx(cosine, abs=1e-12)
    assert products(A, -B, A_other, B_other).cosine == -cosine


@given(ranks, seeds, st.floats(0.01, 100))
def test_a_multiple_of_an_update_has_its_direction(rank: int, seed: int, scale: float) -> None:
    A, B = factors(rank, seed)
    for sign in (1, -1):
        found = products(A, B, A, sign * scale * B)
        assert found.cosine == pytest.approx(sign) and found.norm_ratio == pytest.approx(scale)


def test_random_updates_have_a_cosine_of_0_with_the_deviation_of_their_size() -> None:
    cosines = [products(*factors(3, seed=4 * n), *factors(4, seed=4 * n + 2)).cosine for n in range(2000)]
    found = torch.tensor(cosines)
    assert abs(found.mean()) < 4 / sqrt(D_OUT * D_IN * 2000)
    assert found.std() == pytest.approx(1 / sqrt(D_OUT * D_IN), rel=0.08)


def test_sites_add_up_to_one_long_update() -> None:
    sites = [(factors(2, seed=n), factors(3, seed=n + 50)) for n in range(0, 12, 4)]
    each = [products(*one, *two) for one, two in sites]
    long = [torch.cat([(B @ A).flatten() for A, B in side]) for side in zip(*sites, strict=True)]
    together = Products(*map(sum, zip(*map(astuple, each), strict=True)))
    assert together.cosine == pytest.approx(float(torch.cosine_similarity(long[0], long[1], dim=0)))
    blocks = [torch.block_diag(*(B @ A for A, B in side)) for side in zip(*sites, strict=True)]
    effect = (blocks[1] @ blocks[0].T).norm() / (blocks[0] @ blocks[0].T).norm()
    assert together.effects[0] == pytest.approx(float(effect))


def test_an_update_of_0_has_no_direction() -> None:
    A, B = factors(2, seed=0)
    for found in (products(A, 0 * B, A, B), products(0 * A, B, A, B)):
        assert all(map(isnan, (found.cosine, found.norm_ratio, found.overlap_input, found.ranks[0], found.effects[0])))
        assert found.effects[1] == 0
