"""The closed forms against random subspaces."""

import pytest
import torch
from scipy.stats import beta
from torch import Tensor
from torch.testing import assert_close

from deltaw.chance import random_mean, random_p, random_sd
from deltaw.subspace import similarity

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


def test_mean_and_sd_are_those_of_random_subspaces(simulated: Tensor) -> None:
    mean, sd = random_mean(SIZES_LOW, SIZES_HIGH, WIDTH), random_sd(SIZES_LOW, SIZES_HIGH, WIDTH)
    assert_close(simulated.mean(0), mean, rtol=0, atol=float(5 * sd.max() / DRAWS**0.5))
    assert_close(simulated.std(0), sd, rtol=0.1, atol=0)


def test_a_whole_space_leaves_nothing_to_chance() -> None:
    size = torch.tensor([WIDTH])
    assert_close(random_mean(SIZES_LOW, size, WIDTH), torch.ones(RANK_LOW, 1, dtype=torch.float64))
    assert_close(random_sd(SIZES_LOW, size, WIDTH), torch.zeros(RANK_LOW, 1, dtype=torch.float64))
    assert random_p(1.0, 1.0, 0.0) == 1


@pytest.mark.parametrize("phi", [0.01, 0.2, 0.9])
def test_p_is_exact_for_a_single_direction(phi: float) -> None:
    i, j = torch.tensor(1), torch.tensor(4)
    p = random_p(phi, random_mean(i, j, WIDTH).item(), random_sd(i, j, WIDTH).item())
    assert p == pytest.approx(beta.sf(phi, 2, (WIDTH - 4) / 2))


def test_p_below_1_percent_comes_once_in_a_hundred(simulated: Tensor) -> None:
    i, j = torch.tensor(RANK_LOW), torch.tensor(RANK_HIGH)
    mean, sd = random_mean(i, j, WIDTH).item(), random_sd(i, j, WIDTH).item()
    rare = sum(random_p(phi, mean, sd) < 0.01 for phi in simulated[:, -1, -1].tolist())
    assert 0.003 < rare / DRAWS < 0.02
