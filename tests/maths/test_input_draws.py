"""The level of a layer's own inputs, against draws that are formed and decomposed in full."""

from typing import NamedTuple

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torch.testing import assert_close

from deltaw.maths.input_draws import DRAWS, drawn_cosines
from deltaw.maths.random_subspaces import chance, k_star
from deltaw.maths.subspace import Shared, Stack, shared

WIDTH, D_OUT, TOKENS = 24, 15, 40


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def anisotropic(seed: int = 0) -> Tensor:
    """Tokens whose directions carry less and less."""
    return random(TOKENS, WIDTH, seed=seed) * 0.7 ** torch.arange(WIDTH)


class Case(NamedTuple):
    rank: int
    norm: float = 0.0  # of the update, where A₀ takes part
    to_update: bool = False

    @property
    def start(self) -> Tensor | None:
        return random(self.rank, WIDTH, seed=1) if self.norm else None

    @property
    def B(self) -> Tensor | None:  # noqa: N802
        return random(D_OUT, self.rank, seed=2) * 0.5 ** torch.arange(self.rank) if self.to_update else None


CASES = {
    "update": Case(6),
    "more rows than inputs hold": Case(30),
    "A that has moved little": Case(6, norm=2.0),
    "A that has moved far": Case(6, norm=50.0),
    "input side": Case(6, norm=5.0, to_update=True),
    "input side of A that has moved far": Case(6, norm=50.0, to_update=True),
}


def drawn(case: Case, other: Tensor) -> Tensor:
    X, start, B = anisotropic(), case.start, case.B
    stack = Stack(other, X, *([] if start is None else [start]))
    fixed, inputs, of_start = [*stack.directions, None][:3]
    of_B = None if B is None else Stack(B.T).directions[0]
    assert fixed and inputs
    return drawn_cosines(stack, fixed, inputs, case.rank, of_start, case.norm, of_B)


def plain(case: Case, other: Tensor, draws: int) -> Tensor:
    """N X, A₀ + c N X or B (A₀ + c N X) as they are written, and dense SVDs."""
    A = random(draws, case.rank, TOKENS, seed=3) @ anisotropic()
    if case.start is not None:
        A = case.start + case.norm * A / torch.linalg.matrix_norm(A, keepdim=True)
    if case.B is not None:
        A = case.B @ A
    k = min(case.rank, WIDTH)
    return torch.linalg.svd(A, full_matrices=False).Vh[:, :k] @ torch.linalg.svd(other, full_matrices=False).Vh.T


def numbers(found: Shared) -> dict[str, Tensor]:
    return {"first": found.first, "row": found.row, "corner": found.corner, "largest": found.cos2[:, 0]}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_draws_are_distributed_as_those_formed_in_full(case: Case) -> None:
    other = random(3, TOKENS, seed=4) @ anisotropic() + 0.05 * random(3, WIDTH, seed=5)
    ours, theirs = numbers(shared(drawn(case, other))), numbers(shared(plain(case, other, draws=2000)))
    for name, values in ours.items():
        expected = theirs[name]
        assert len(values) == DRAWS
        assert abs(values.mean() - expected.mean()) <= 4 * expected.std() / DRAWS**0.5 + 1e-9, name
        if expected.std() > 1e-9:
            assert ks_2samp(values.numpy(), expected.numpy()).pvalue > 1e-3, name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_drawn_directions_are_orthonormal(case: Case) -> None:
    D = drawn(case, torch.eye(WIDTH).double())  # in terms of all axes
    assert D.shape == (DRAWS, min(case.rank, WIDTH), WIDTH)
    assert_close(D @ D.mT, torch.eye(D.shape[1], dtype=torch.float64).expand(DRAWS, -1, -1))


def test_drawn_directions_lie_in_the_span_of_few_inputs() -> None:
    X = random(7, WIDTH, seed=0)
    stack = Stack(X)
    (inputs,) = stack.directions
    cosines = drawn_cosines(stack, inputs, inputs, rank=4)
    assert_close(shared(cosines).cos2, torch.ones(DRAWS, 4, dtype=torch.float64))


def test_an_update_that_is_small_leaves_the_start() -> None:
    start = random(4, WIDTH, seed=1)
    stack = Stack(start, anisotropic())
    fixed, inputs = stack.directions
    cosines = drawn_cosines(stack, fixed, inputs, rank=4, start=fixed, norm=1e-9)
    assert_close(shared(cosines).cos2, torch.ones(DRAWS, 4, dtype=torch.float64))


def test_draws_are_the_same_each_time() -> None:
    other = random(3, WIDTH, seed=4)
    assert_close(drawn(CASES["update"], other), drawn(CASES["update"], other), rtol=0, atol=0)


def test_isotropic_inputs_give_no_more_than_random_subspaces() -> None:
    low, high, width = 4, 8, 32
    stack = Stack(random(low, width, seed=1), random(1000, width, seed=0))
    fixed, inputs = stack.directions
    corner = shared(drawn_cosines(stack, fixed, inputs, rank=high)).corner
    mean, sd = (float(values[-1, -1]) for values in chance(low, high, width))
    assert mean == high / width
    assert corner.mean() == pytest.approx(mean, abs=4 * sd / DRAWS**0.5)
    assert corner.std() == pytest.approx(sd, rel=0.25)


LOW, HIGH, WIDE, DOMINANT = 4, 8, 64, 6


def dominated() -> Tensor:
    """Tokens that lie close to a few directions of a wide space."""
    return random(400, WIDE, seed=0) * torch.cat([10 * torch.ones(DOMINANT), 0.3 * torch.ones(WIDE - DOMINANT)])


def within_dominant(seed: int) -> Tensor:
    return random(LOW, DOMINANT, seed=seed) @ torch.eye(WIDE).double()[:DOMINANT]


def compared(low: Tensor, high: Tensor) -> tuple[Shared, Shared]:
    """What two updates share, and what the first shares with draws in the place of the second."""
    stack = Stack(low, high, dominated())
    fixed, other, inputs = stack.directions
    return shared(stack.cosines(fixed, other)), shared(drawn_cosines(stack, fixed, inputs, rank=len(high)).mT)


def test_an_update_within_the_dominant_inputs_is_beyond_random_subspaces_and_not_beyond_this() -> None:
    p = []
    for seed in range(20):
        measured, level = compared(within_dominant(seed), random(HIGH, 400, seed=100 + seed) @ dominated())
        assert k_star(measured.cos2.numpy(), LOW, HIGH, WIDE) == LOW
        p.append(float((level.corner >= measured.corner).double().mean()))
    assert 0.25 < sum(p) / len(p) < 0.75  # uniform, were the draws others each time
    assert sum(value < 0.05 for value in p) <= 4


def test_a_direction_that_is_shared_besides_the_inputs_is_beyond_this() -> None:
    low, high = within_dominant(0), random(HIGH, 400, seed=1) @ dominated()
    low[0, -1] = high[0, -1] = 1000.0  # hardly an input points there
    measured, level = compared(low, high)
    assert measured.corner > level.corner.max()
