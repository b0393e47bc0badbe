"""Measures of a site, read from adapter folders, against the paper's formula on dense matrices."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytest import TempPathFactory
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from deltaw.analysis.bases import BASES
from deltaw.analysis.site import SiteMeasures, measure_site
from deltaw.maths.subspace import NEGLIGIBLE, shared
from deltaw.run.adapter import Adapter, load_adapter

MODULE = "base_model.model.layers.0.q_proj"
D_IN, D_OUT, ALPHA = 14, 11, 16
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
seeds = st.integers(0, 2**32)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graded(rank: int, width: int, digits: float, seed: int) -> Tensor:
    """Singular values from 1 down to 10 ** -digits, at random distances."""
    generator = torch.Generator().manual_seed(seed)
    values = 10 ** -(digits * torch.rand(rank, generator=generator, dtype=torch.float64))
    left, right = (torch.linalg.qr(random(n, rank, seed=seed + n)).Q for n in (rank, width))
    return left * (values / values.max()) @ right.T


@dataclass(frozen=True)
class Factors:
    """The factors of one arm, and the factors before its first step."""

    A: Tensor
    B: Tensor
    A_start: Tensor
    B_start: Tensor

    def save(self, folder: Path) -> Adapter:
        start = write(folder / "start", self.A_start, self.B_start)
        return load_adapter(write(folder / "end", self.A, self.B), start=start)

    def dense(self, basis: str) -> NDArray[np.float64]:
        """The matrix whose subspaces are compared."""
        A, B, A_start, B_start = (X.double().numpy() for X in (self.A, self.B, self.A_start, self.B_start))
        update = ALPHA / len(A) * (B @ A - B_start @ A_start)
        return {"A": A, "update": A - A_start}.get(basis, update)


def write(folder: Path, A: Tensor, B: Tensor) -> Path:
    folder.mkdir(parents=True)
    save_file(
        {f"{MODULE}.lora_{x}.weight": X.contiguous() for x, X in zip("AB", (A, B), strict=True)},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": len(A), "lora_alpha": ALPHA, "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@st.composite
def arms(draw: st.DrawFn, altered: bool = False) -> Factors:
    """Factors of a condition up to 1e5, some exactly rank-deficient, in any precision; A has moved little or much."""
    rank, seed, digits = draw(st.integers(1, 5)), draw(seeds), draw(st.floats(0, 5))
    A_start, B_start = random(rank, D_IN, seed=seed), altered * random(D_OUT, rank, seed=seed + 1)
    A = (altered or draw(st.booleans())) * A_start + 10 ** draw(st.floats(-4, 0)) * graded(rank, D_IN, digits, seed + 2)
    B = B_start + graded(rank, D_OUT, digits, seed + 3).T
    if rank > 1 and draw(st.booleans()):
        for X in (A, A_start, B.T, B_start.T):
            X[-1] = 2 * X[0]  # exact in any precision
    dtype = draw(st.sampled_from(DTYPES))
    return Factors(*(X.to(dtype) for X in (A, B, A_start, B_start)))


def measure(folders: Path, *factors_of_arms: Factors) -> SiteMeasures:
    """Save the arms and measure their one site."""
    adapters = [factors.save(folders / str(k)) for k, factors in enumerate(factors_of_arms)]
    (site,) = adapters[0].sites
    return measure_site(site, adapters, BASES)


def check_against_dense(phi: Tensor, one: Factors, other: Factors, basis: str) -> None:
    """Compare φ of sizes that end at a gap: elsewhere rounding turns the directions of the dense reference."""
    (U, ends_U), (V, ends_V) = (directions(factors.dense(basis), basis) for factors in (one, other))
    for i in range(1, phi.shape[0] + 1):
        for j in range(1, phi.shape[1] + 1):
            if i > len(ends_U) or j > len(ends_V):
                assert phi[i - 1, j - 1].isnan()
            elif ends_U[i - 1] and ends_V[j - 1]:
                expected = np.linalg.norm(U[:, :i].T @ V[:, :j], "fro") ** 2 / min(i, j)
                assert_close(phi[i - 1, j - 1].item(), expected, rtol=0, atol=1e-6)


def directions(dense: NDArray[np.float64], basis: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Singular vectors as columns, by a full SVD; and for each above rounding, whether a gap follows it."""
    left, values, right = np.linalg.svd(dense)
    shares = np.append(values, 0) / (values[0] or 1)
    assume(not ((shares > 0.9 * NEGLIGIBLE) & (shares < 1.1 * NEGLIGIBLE)).any())
    gaps = -np.diff(shares)[shares[:-1] > NEGLIGIBLE]
    return left if basis == "output" else right.T, gaps > 1e-7


@pytest.mark.parametrize("basis", BASES)
@given(one=arms(), other=arms())
def test_phi_is_the_papers_formula_on_dense_matrices(
    one: Factors, other: Factors, basis: str, tmp_path_factory: TempPathFactory
) -> None:
    phi = measure(tmp_path_factory.mktemp("arms"), one, other).phi(basis, 0, 1)
    assert phi.shape == (len(one.A), len(other.A))
    check_against_dense(phi, one, other, basis)


@pytest.mark.parametrize("basis", BASES)
@given(one=arms(altered=True), other=arms())
def test_phi_of_an_arm_that_altered_its_base_compares_what_it_learned(
    one: Factors, other: Factors, basis: str, tmp_path_factory: TempPathFactory
) -> None:
    found = measure(tmp_path_factory.mktemp("arms"), one, other)
    check_against_dense(found.phi(basis, 0, 1), one, other, basis)
    check_against_dense(found.phi(basis, 1, 0), other, one, basis)


@given(arms(altered=True))
def test_an_arm_that_altered_its_base_learned_at_most_twice_its_rank(
    tmp_path_factory: TempPathFactory, arm: Factors
) -> None:
    found = measure(tmp_path_factory.mktemp("arms"), arm).directions("output", 0)
    values = np.linalg.svd(arm.dense("output"), compute_uv=False)
    _, gaps = directions(arm.dense("output"), "output")
    assert found is not None
    assert len(found.values) == len(gaps) <= 2 * len(arm.A)
    assert_close(found.values.numpy(), values[: len(gaps)], rtol=0, atol=1e-6 * values[0])


@given(seeds, seeds)
def test_phi_on_a_nearly_frozen_factor_is_exact(tmp_path_factory: TempPathFactory, seed: int, seed_other: int) -> None:
    one, other = nearly_frozen(4, seed), nearly_frozen(3, seed_other)
    found = measure(tmp_path_factory.mktemp("arms"), one, other)
    assert found.moved(0) == pytest.approx(1e-4, rel=1e-2)
    check_against_dense(found.phi("update", 0, 1), one, other, "update")


def nearly_frozen(rank: int, seed: int) -> Factors:
    A_start, step = random(rank, D_IN, seed=seed), random(rank, D_IN, seed=seed + 1)
    A = A_start + 1e-4 * step * A_start.norm() / step.norm()
    factors = A, random(D_OUT, rank, seed=seed + 2), A_start, torch.zeros(D_OUT, rank)
    return Factors(*(X.float() for X in factors))


@pytest.mark.parametrize("basis", ["input", "output"])
@given(seed=seeds)
def test_small_steps_from_an_altered_base_keep_their_digits(
    tmp_path_factory: TempPathFactory, basis: str, seed: int
) -> None:
    start = random(3, D_IN, seed=seed), random(D_OUT, 3, seed=seed + 1)
    steps = graded(3, D_IN, 3, seed + 2), graded(3, D_OUT, 3, seed + 3).T
    one = Factors(start[0] + 1e-4 * steps[0], start[1] + 1e-4 * steps[1], *start)
    other = trained(4, seed + 9)
    check_against_dense(measure(tmp_path_factory.mktemp("arms"), one, other).phi(basis, 0, 1), one, other, basis)


def trained(rank: int, seed: int, dtype: torch.dtype = torch.float64) -> Factors:
    """An arm with large gaps between its singular values."""
    A_start, A = random(rank, D_IN, seed=seed), random(rank, D_IN, seed=seed + 1)
    B = torch.linalg.qr(random(D_OUT, rank, seed=seed + 2)).Q * 0.5 ** torch.arange(rank)
    return Factors(*(X.to(dtype) for X in (A, B, A_start, torch.zeros(D_OUT, rank))))


@given(st.integers(1, 5), st.integers(1, 5), seeds)
def test_phi_of_whole_spans_is_the_same_on_a_and_on_the_input_side(
    tmp_path_factory: TempPathFactory, rank: int, rank_other: int, seed: int
) -> None:
    found = measure(tmp_path_factory.mktemp("arms"), trained(rank, seed), trained(rank_other, seed + 9))
    assert_close(found.phi("A", 0, 1)[-1, -1], found.phi("input", 0, 1)[-1, -1])


@given(arms())
def test_singular_values_of_the_update_have_its_scale(tmp_path_factory: TempPathFactory, arm: Factors) -> None:
    found = measure(tmp_path_factory.mktemp("arms"), arm)
    for basis in BASES:
        measured, values = found.directions(basis, 0), np.linalg.svd(arm.dense(basis), compute_uv=False)
        assert measured is not None
        assert_close(measured.values.numpy(), values[: len(measured.values)], rtol=0, atol=1e-6 * values[0])


def refactored(arm: Factors, seed: int) -> Factors:
    """Other factors of the same products: B G and G⁻¹ A."""
    G = random(len(arm.A), len(arm.A), seed=seed) + 3 * torch.eye(len(arm.A))
    inverse = torch.linalg.inv(G)
    return Factors(inverse @ arm.A, arm.B @ G, inverse @ arm.A_start, arm.B_start @ G)


@pytest.fixture
def copied(tmp_path: Path) -> SiteMeasures:
    """An arm, a refactored copy of it, and another arm."""
    arm = trained(4, seed=0)
    return measure(tmp_path, arm, refactored(arm, seed=1), trained(5, seed=2))


def test_a_refactored_copy_has_other_factors(copied: SiteMeasures) -> None:
    assert copied.phi("A", 0, 1)[0, 0] < 0.9


@pytest.mark.parametrize("basis", ["input", "output"])
def test_a_refactored_copy_has_the_same_leading_directions(copied: SiteMeasures, basis: str) -> None:
    assert_close(copied.phi(basis, 0, 1).diagonal(), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("basis", ["input", "output"])
def test_a_refactored_copy_has_the_same_phi_with_any_other_arm(copied: SiteMeasures, basis: str) -> None:
    assert_close(copied.phi(basis, 1, 2), copied.phi(basis, 0, 2))


@pytest.mark.parametrize("basis", ["input", "output"])
def test_a_refactored_copy_has_the_same_spectrum(copied: SiteMeasures, basis: str) -> None:
    arm, copy = (copied.directions(basis, number) for number in (0, 1))
    assert arm is not None and copy is not None
    assert_close(arm.values, copy.values)


@pytest.mark.parametrize("basis", BASES)
def test_a_refactored_copy_has_the_same_span(copied: SiteMeasures, basis: str) -> None:
    cosines = copied.cosines(basis, 0, 1)
    assert cosines is not None
    assert_close(shared(cosines).cos2, torch.ones(4, dtype=torch.float64))
    assert_close(copied.phi(basis, 0, 1)[-1, -1].item(), 1.0)


@pytest.mark.parametrize("basis", BASES)
def test_a_refactored_copy_has_the_same_angles_with_any_other_arm(copied: SiteMeasures, basis: str) -> None:
    arm, copy = (copied.cosines(basis, number, 2) for number in (0, 1))
    assert arm is not None and copy is not None
    assert_close(shared(arm).cos2, shared(copy).cos2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_measure_computed_twice_is_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    arm = trained(3, seed=0, dtype=dtype)
    found = measure(tmp_path, arm)
    expected = np.linalg.norm(arm.dense("update")) / arm.A_start.double().norm().item()
    assert [found.moved(0), found.moved(0)] == pytest.approx([expected] * 2)


def test_an_unknown_start_leaves_the_update_out(tmp_path: Path) -> None:
    arm = trained(3, seed=0)
    adapters = [arm.save(tmp_path), load_adapter(write(tmp_path / "without-start", arm.A, arm.B))]
    (site,) = adapters[0].sites
    found = measure_site(site, adapters, BASES)
    assert found.directions("update", 1) is None and found.cosines("update", 0, 1) is None
    assert found.moved(1) is None
    assert_close(found.phi("update", 0, 0).diagonal(), torch.ones(3, dtype=torch.float64))


def test_only_the_bases_asked_for_are_measured(tmp_path: Path) -> None:
    adapter = trained(3, seed=0).save(tmp_path)
    (site,) = adapter.sites
    found = measure_site(site, [adapter], ["A"])
    assert [basis for basis in BASES if found.directions(basis, 0)] == ["A"]


def test_row_cosine_separates_one_start_from_two(tmp_path: Path) -> None:
    low, high, unrelated = trained(3, seed=0), trained(5, seed=0), trained(5, seed=7)
    one = Factors(high.A[:3] + 0.1 * low.A, low.B, low.A_start, low.B_start)
    found = measure(tmp_path, one, high, unrelated)
    assert found.row_cosine(0, 1) > 0.9
    assert abs(found.row_cosine(0, 2)) < 0.4
