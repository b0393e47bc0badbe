"""The closed forms and k_star, against simulated random subspaces and published values."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import beta
from torch import Tensor
from torch.testing import assert_close

from deltaw.maths.random_subspaces import chance, k_star, random_mean, random_p, random_sd, tracy_widom_tail
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


# Quantiles of TW₁ as tabulated in Johnstone (2008), and to two digits in Johnstone (2001).
@pytest.mark.parametrize(
    ("s", "below", "digits"),
    [(0.9793, 0.95, 5e-5), (2.0234, 0.99, 5e-5), (0.45, 0.9, 2e-3), (-1.27, 0.5, 2e-3), (-2.78, 0.1, 2e-3)],
)
def test_tracy_widom_has_the_published_quantiles(s: float, below: float, digits: float) -> None:
    assert 1 - tracy_widom_tail(s) == pytest.approx(below, abs=digits)


def test_tracy_widom_has_the_published_moments() -> None:
    start = -8.0  # nothing is below
    mean = start + quad(tracy_widom_tail, start, 12)[0]
    square = quad(lambda s: 2 * (s - start) * tracy_widom_tail(s), start, 12)[0]
    assert mean == pytest.approx(-1.2065335745820, abs=1e-5)
    assert square - (mean - start) ** 2 == pytest.approx(1.607781034581, abs=1e-5)


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


@pytest.mark.parametrize(("low", "high", "width"), [(8, 64, 768), (64, 64, 768), (8, 64, 256)])
def test_random_subspaces_share_a_direction_as_often_as_the_level_says(low: int, high: int, width: int) -> None:
    counts = [k_star(cos2, low, high, width, level=0.05) for cos2 in random_cos2(low, high, width).numpy()]
    assert 0.03 <= np.mean(np.array(counts) > 0) <= 0.07


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


def test_directions_can_be_counted_in_the_smallest_space_with_room() -> None:
    assert k_star(np.ones(8), 8, 64, 73) in range(9)


def test_a_subspace_larger_than_the_space_is_refused() -> None:
    with pytest.raises(ValueError, match="64 directions do not fit into width 32"):
        chance(8, 64, width=32)
