"""Spectra against closed forms and against numpy."""

import warnings
from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deltaw.maths.spectrum import spectrum, spectrum_of

seeds = st.integers(0, 2**32)
ranks = st.integers(1, 8)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(random(size, size, seed=seed)).Q


def with_values(*values: float) -> Tensor:
    """A matrix with these singular values."""
    rank = len(values)
    return rotation(rank, seed=0) * torch.tensor(values, dtype=torch.float64) @ rotation(rank + 4, seed=1)[:rank]


@given(ranks, st.floats(1e-3, 1e3), seeds)
def test_orthogonal_rows_use_every_direction_equally(rank: int, length: float, seed: int) -> None:
    found = spectrum(length * rotation(9, seed)[:rank])
    assert found.stable_rank == pytest.approx(rank)
    assert found.entropy_rank == pytest.approx(rank)
    assert found.energy_rank == rank  # 90 % needs all of up to 9 equal directions
    assert found.norm == pytest.approx(length * rank**0.5)


@pytest.mark.parametrize(("rank", "needed"), [(10, 9), (20, 18), (64, 58)])
def test_nine_tenths_of_equal_directions_hold_90_percent(rank: int, needed: int) -> None:
    assert spectrum(rotation(rank, seed=0)).energy_rank == needed


def test_exactly_90_percent_is_enough() -> None:
    assert spectrum(with_values(3, 1)).energy_rank == 1


@pytest.mark.parametrize("ratio", [0.3, 0.8])
def test_ranks_of_a_geometric_spectrum_agree_with_closed_forms(ratio: float) -> None:
    rank, q = 6, ratio**2
    found = spectrum(with_values(*(7 * ratio**n for n in range(rank))))
    total = (1 - q**rank) / (1 - q)
    mean_place = sum(n * q**n for n in range(rank)) / total
    assert found.stable_rank == pytest.approx(total)
    assert found.entropy_rank == pytest.approx(exp(log(total) - mean_place * log(q)))
    assert found.energy_rank == next(k for k in range(1, rank + 1) if 1 - q**k >= 0.9 * (1 - q**rank))
    assert found.gaps.tolist() == pytest.approx([1 - ratio] * (rank - 1) + [1])


@pytest.mark.parametrize(
    ("values", "turned"),
    [
        ([4.0, 3.9, 2.0, 1.0], [1, 2]),
        ([4.0, 2.0, 1.0, 0.99], [3, 4]),
        ([4.0, 3.9, 2.0, 1.0, 0.99], [1, 2, 4, 5]),
        ([4.0, 3.9, 3.8, 2.0], [1, 2, 3]),
        ([4.0, 3.0, 2.0], []),
        ([4.0], []),
    ],
)
def test_directions_next_to_a_small_gap_are_arbitrary(values: list[float], turned: list[int]) -> None:
    assert spectrum(with_values(*values)).arbitrary == turned


@given(ranks, seeds)
def test_a_rotation_leaves_the_spectrum(rank: int, seed: int) -> None:
    A = random(rank, 9, seed=seed)
    turned = rotation(rank, seed + 1) @ A @ rotation(9, seed + 2)
    assert_close(spectrum(turned).singular_values, spectrum(A).singular_values)


@given(ranks, seeds, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_the_spectrum_of_an_update_agrees_with_numpy(rank: int, seed: int, dtype: torch.dtype) -> None:
    A, B = random(rank, 9, seed=seed).to(dtype), random(11, rank, seed=seed + 1).to(dtype)
    dense = np.linalg.svd((B.double() @ A.double()).numpy(), compute_uv=False)[:rank]
    assert_close(spectrum(A, B).singular_values.numpy(), dense, rtol=0, atol=1e-9 * dense[0])


def test_ranks_of_a_deficient_factor_lie_between_1_and_its_numerical_rank() -> None:
    found = spectrum(torch.cat([random(2, 9, seed=0)] * 3))
    assert len(found.singular_values) == 2
    assert 1 <= found.stable_rank <= found.entropy_rank <= 2


def test_an_untrained_update_has_no_spectrum() -> None:
    found = spectrum(random(4, 9, seed=0), torch.zeros(11, 4))
    assert len(found.singular_values) == len(found.gaps) == found.energy_rank == found.norm == 0
    assert np.isnan([found.stable_rank, found.entropy_rank]).all()
    assert found.arbitrary == []


def test_a_single_direction_is_rank_1_in_every_sense() -> None:
    found = spectrum_of(torch.tensor([5.0], dtype=torch.float64))
    assert (found.stable_rank, found.entropy_rank, found.energy_rank) == (1, 1, 1)


def test_a_factor_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        spectrum(random(2, 9, seed=0), torch.full((11, 2), torch.nan))


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_ranks_do_not_depend_on_the_unit(scale: float) -> None:
    values = torch.tensor([4.0, 2.0, 1.0]).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small, plain = spectrum_of(scale * values), spectrum_of(values)
    assert small.entropy_rank == pytest.approx(plain.entropy_rank)
    assert small.stable_rank == pytest.approx(plain.stable_rank) and small.energy_rank == plain.energy_rank


def test_a_spectrum_takes_numpy_and_factors_that_fit() -> None:
    generator = np.random.default_rng(0)
    A, B = generator.normal(size=(3, 16)), generator.normal(size=(8, 3))
    found = spectrum(A, B)
    assert found.singular_values.numpy() == pytest.approx(np.linalg.svd(B @ A, compute_uv=False)[:3])
    with pytest.raises(ValueError, match="A is 3 × 16 and B is 3 × 8: give A as rank × d_in"):
        spectrum(A, B.T)
