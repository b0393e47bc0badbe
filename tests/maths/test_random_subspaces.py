"""The closed forms and k_star, against simulated random subspaces and published values."""

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.special import logit
from scipy.stats import beta, binom
from torch import Tensor
from torch.testing import assert_close

from deltaw.maths.random_subspaces import (
    LEAST_WIDTH,
    MOST_DIRECTIONS,
    chance,
    k_star,
    largest_by_chance,
    random_mean,
    random_p,
    random_sd,
)
from deltaw.maths.subspace import Stack, shared, similarity

RANK_LOW, RANK_HIGH, WIDTH, DRAWS = 3, 6, 20, 1500
SIZES_LOW, SIZES_HIGH = torch.arange(1, RANK_LOW + 1)[:, None], torch.arange(1, RANK_HIGH + 1)


@pytest.fixture(scope="module")
def simulated() -> Tensor:
    """φ between Gaussian factors, whose leading directions are uniformly random: (draw, i, j)."""
    generator = torch.Generator().manual_seed(0)
    pairs = [
        [torch.randn(rank, WIDTH, generator=generator, dtype=torch.float64) for rank in (RANK_LOW, RANK_HIGH)]
        for _ in range(DRAWS)
    ]
    return torch.stack([similarity(low, high) for low, high in pairs])


def test_mean_and_sd_agree_with_simulated_subspaces(simulated: Tensor) -> None:
    mean, sd = chance(RANK_LOW, RANK_HIGH, WIDTH)
    assert_close(simulated.mean(0), mean, rtol=0, atol=float(5 * sd.max() / DRAWS**0.5))
    assert_close(simulated.std(0), sd, rtol=0.1, atol=0)


def test_chance_holds_every_pair_of_sizes() -> None:
    mean, sd = chance(RANK_LOW, RANK_HIGH, WIDTH)
    for i in range(1, RANK_LOW + 1):
        for j in range(1, RANK_HIGH + 1):
            sizes = torch.tensor(i), torch.tensor(j)
            assert mean[i - 1, j - 1] == random_mean(*sizes, WIDTH) == max(i, j) / WIDTH
            assert sd[i - 1, j - 1] == random_sd(*sizes, WIDTH)


def test_chance_does_not_depend_on_which_side_is_larger() -> None:
    for one, other in zip(chance(3, 6, WIDTH), chance(6, 3, WIDTH), strict=True):
        assert_close(one, other.T)


def test_a_whole_space_leaves_nothing_to_chance() -> None:
    size = torch.tensor([WIDTH])
    assert_close(random_mean(SIZES_LOW, size, WIDTH), torch.ones(RANK_LOW, 1, dtype=torch.float64))
    assert_close(random_sd(SIZES_LOW, size, WIDTH), torch.zeros(RANK_LOW, 1, dtype=torch.float64))
    assert random_p(1.0, RANK_LOW, WIDTH, WIDTH) == 1


@pytest.mark.parametrize("phi", [0.0, 0.01, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 4, 19])
def test_p_is_exact_for_a_single_direction(phi: float, size: int) -> None:
    exact = beta.sf(phi, size / 2, (WIDTH - size) / 2)
    assert random_p(phi, 1, size, WIDTH) == pytest.approx(exact)
    assert random_p(phi, size, 1, WIDTH) == pytest.approx(exact)


@pytest.mark.parametrize("size", [2, 7, 19])
def test_p_is_exact_where_all_but_one_direction_is_in_the_larger_subspace(size: int) -> None:
    """‖UᵀV‖² is then size − 1 + ‖U⊥ᵀv‖², with v the one direction that is left."""
    for share in (0.1, 0.6):
        phi = (size - share) / size  # of v, `share` lies in the complement of U
        assert random_p(phi, size, WIDTH - 1, WIDTH) == pytest.approx(beta.cdf(share, size / 2, (WIDTH - size) / 2))


def test_p_ignores_directions_shared_by_dimension_alone() -> None:
    low, high, width, draws = 8, 14, 16, 4000
    generator = torch.Generator().manual_seed(0)
    bases = [
        torch.linalg.qr(torch.randn(draws, width, size, generator=generator, dtype=torch.float64)).Q
        for size in (low, high)
    ]
    phi = (bases[0].mT @ bases[1]).square().sum((1, 2)) / low
    rare = random_p(phi.numpy(), low, high, width) < 0.01
    assert 0.005 < rare.mean() < 0.016


def test_p_is_below_1_percent_once_in_a_hundred(simulated: Tensor) -> None:
    rare = random_p(simulated[:, -1, -1].numpy(), RANK_LOW, RANK_HIGH, WIDTH) < 0.01
    assert 0.003 < rare.mean() < 0.02


def test_a_narrow_space_has_a_p_of_a_single_direction_alone() -> None:
    width = LEAST_WIDTH - 1
    assert np.isnan(random_p(0.5, 2, 3, width)) and np.isnan(random_p(0.9, 3, width - 2, width))
    assert not np.isnan(random_p(0.5, 1, 3, width)) and not np.isnan(random_p(0.9, 3, width - 1, width))
    assert random_p(1.0, 3, width, width) == 1
    assert not np.isnan(random_p(0.5, 2, 3, LEAST_WIDTH))


def test_p_falls_from_1_without_overlap_to_0_where_all_is_shared() -> None:
    p = random_p(np.linspace(0, 1, 20), RANK_LOW, RANK_HIGH, WIDTH)
    assert p[0] == 1 and p[-1] == 0 and (np.diff(p) <= 0).all()


def test_p_is_nan_where_phi_is() -> None:
    assert np.isnan(random_p(np.nan, 2, 3, WIDTH)) and np.isnan(random_p(np.nan, 2, WIDTH, WIDTH))


def test_p_of_a_grid_equals_p_of_each_cell(simulated: Tensor) -> None:
    phi = simulated[0].numpy().copy()
    phi[0, 0], phi[1, 1] = np.nan, 1
    p = random_p(phi, SIZES_LOW.numpy(), SIZES_HIGH.numpy(), WIDTH)
    for i, j in np.ndindex(phi.shape):
        np.testing.assert_equal(p[i, j], random_p(phi[i, j].item(), i + 1, j + 1, WIDTH).item())


@pytest.mark.parametrize(("large", "width"), [(2, 7), (5, 12), (6, 30)])
@pytest.mark.parametrize("level", [0.05, 1e-4])
def test_the_largest_of_two_angles_follows_their_density(large: int, width: int, level: float) -> None:
    def density(t: float, other: float) -> float:
        powers = [(x ** ((large - 3) / 2)) * (1 - x) ** ((width - large - 3) / 2) for x in (t, other)]
        return (other - t) * powers[0] * powers[1]

    edge = largest_by_chance(2, large, width, level)
    above, below = (
        dblquad(density, start, end, 0, lambda other: other, epsabs=0)[0] for start, end in ((edge, 1), (0, edge))
    )
    assert above / (above + below) == pytest.approx(level, rel=1e-5)


@pytest.mark.parametrize(("level", "quantile"), [(0.05, 0.9793), (0.01, 2.0234)])
@pytest.mark.parametrize(("low", "high", "width"), [(64, 64, 768), (64, 1024, 4096), (MOST_DIRECTIONS, 513, 4096)])
def test_the_law_of_large_subspaces_is_tracys_and_widoms(
    low: int, high: int, width: int, level: float, quantile: float
) -> None:
    """With the quantiles, the mean and the spread that Johnstone (2008) gives."""
    n = width - 1
    gamma, omega = (2 * np.arcsin(np.sqrt((size - 0.5) / n)) for size in (low, high))
    mean = 2 * np.log(np.tan((omega + gamma) / 2))
    spread = (16 / (n**2 * np.sin(omega + gamma) ** 2 * np.sin(omega) * np.sin(gamma))) ** (1 / 3)
    edge = largest_by_chance(low, high, width, level)
    assert (logit(edge) - mean) / spread == pytest.approx(quantile, abs=0.06)


def random_cos2(low: int, high: int, width: int, draws: int = 1000) -> Tensor:
    """cos² of the principal angles between the spans of Gaussian matrices: (draw, angle).

    With L Lᵀ the inner products of a span's rows, L⁻¹ times the rows is an orthonormal basis of it.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(draws // 50):
        rows = torch.randn(50, low + high, width, generator=generator)
        products = (rows @ rows.mT).double()
        one, other = products[:, :low, :low], products[:, low:, low:]
        to_one, to_other = (torch.linalg.inv(torch.linalg.cholesky(block)) for block in (one, other))
        found.append(torch.linalg.svdvals(to_one @ products[:, :low, low:] @ to_other.mT).square())
    return torch.cat(found)


SIZES = [(2, 2, 8), (4, 4, 16), (8, 64, 74), (8, 64, 256), (8, 64, 768), (16, 16, 128), (64, 64, 140)]


@pytest.mark.parametrize(("low", "high", "width"), SIZES)
def test_random_subspaces_share_a_direction_as_often_as_the_level_says(low: int, high: int, width: int) -> None:
    cos2 = random_cos2(low, high, width).numpy()
    for level in (0.05, 0.01):
        false = sum(k_star(each, low, high, width, level) > 0 for each in cos2)
        assert binom.ppf(0.01, len(cos2), level) <= false <= binom.ppf(0.99, len(cos2), level)


@pytest.mark.parametrize(("low", "high", "width"), SIZES)
def test_thresholds_fall_from_direction_to_direction(low: int, high: int, width: int) -> None:
    thresholds = [largest_by_chance(low - k, high - k, width - k, 0.01) for k in range(low)]
    assert (np.diff(thresholds) < 0).all()
    at_threshold = [k_star(np.array(thresholds) + shift, low, high, width, 0.01) for shift in (1e-12, -1e-12)]
    assert at_threshold == [low, 0]


def planted(cos2: Tensor, low: int, high: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two spans whose first principal angles have these cos²; their other directions are random."""
    count, generator = len(cos2), torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(width, 2 * count, generator=generator, dtype=torch.float64)).Q.T
    one, across = frame[:count], frame[count:]
    other = cos2.sqrt()[:, None] * one + (1 - cos2).sqrt()[:, None] * across
    rest = torch.randn(low + high - 2 * count, width, generator=generator, dtype=torch.float64)
    rest -= rest @ frame.T @ frame
    return torch.cat([one, rest[: low - count]]), torch.cat([other, rest[low - count :]])


@pytest.mark.parametrize(("low", "high"), [(8, 64), (64, 64)])
def test_five_planted_directions_are_counted(low: int, high: int) -> None:
    cos2 = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5], dtype=torch.float64)
    counts = []
    for seed in range(20):
        one, other = planted(cos2, low, high, 768, seed)
        stack = Stack({"one": one, "other": other})
        cosines = stack.cosines(stack.directions["one"], stack.directions["other"])
        counts.append(k_star(shared(cosines).cos2.numpy(), low, high, 768))
    assert min(counts) == 5 and counts.count(5) >= 17  # chance adds a sixth once in twenty


@pytest.mark.parametrize("overlap", [1.0, 0.8])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_planted_directions_are_counted_on_average(count: int, overlap: float) -> None:
    cos2, counts = torch.full((count,), overlap, dtype=torch.float64), []
    for seed in range(100):
        one, other = (torch.linalg.qr(rows.T).Q for rows in planted(cos2, 8, 64, 256, seed))
        counts.append(k_star(torch.linalg.svdvals(one.T @ other).square().numpy(), 8, 64, 256))
    assert np.mean(counts) == pytest.approx(count, abs=0.2)


def test_a_span_shares_all_directions_with_a_larger_one() -> None:
    assert k_star(np.ones(8), 8, 64, 768) == 8


def test_directions_behind_the_first_unshared_one_do_not_count() -> None:
    assert k_star([0.9, 0.01, 0.01], 3, 6, 768) == 1


@pytest.mark.parametrize(("low", "high"), [(1, 5), (5, 1), (1, 1)])
def test_the_threshold_of_a_single_direction_is_the_beta_laws(low: int, high: int) -> None:
    edge = beta.isf(0.05, max(low, high) / 2, (WIDTH - max(low, high)) / 2)
    assert k_star([edge + 1e-9], low, high, WIDTH, level=0.05) == 1
    assert k_star([edge - 1e-9], low, high, WIDTH, level=0.05) == 0


@pytest.mark.parametrize(("low", "high"), [(2, 5), (5, 2), (2, 2)])
def test_the_threshold_of_the_last_direction_is_for_the_remaining_space(low: int, high: int) -> None:
    size = max(low, high) - 1
    edge = beta.isf(0.05, size / 2, (WIDTH - 1 - size) / 2)
    assert k_star([1.0, edge + 1e-9], low, high, WIDTH, level=0.05) == 2
    assert k_star([1.0, edge - 1e-9], low, high, WIDTH, level=0.05) == 1


@pytest.mark.parametrize(("low", "high", "width"), [(8, 64, 72), (8, 64, 64), (64, 64, 100)])
def test_nothing_can_be_counted_where_the_space_is_too_small(low: int, high: int, width: int) -> None:
    assert np.isnan(k_star(np.ones(low), low, high, width))


def test_nothing_is_counted_where_both_have_too_many_directions_for_float64() -> None:
    most = MOST_DIRECTIONS
    assert np.isnan(k_star(np.ones(most + 1), most + 1, most + 1, 4 * most))
    assert k_star([1.0, 0.0], 8, most + 1, 4 * most) == 1


def test_directions_can_be_counted_in_the_smallest_space_with_room() -> None:
    assert k_star(np.ones(8), 8, 64, 73) == 8


def test_a_subspace_larger_than_the_space_is_refused() -> None:
    with pytest.raises(ValueError, match="64 directions do not fit into width 32"):
        chance(8, 64, width=32)
