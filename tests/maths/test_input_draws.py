"""Draws from a layer's inputs, against draws that are multiplied out and decomposed."""

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
    """Tokens with ever smaller components along the axes."""
    return random(TOKENS, WIDTH, seed=seed) * 0.7 ** torch.arange(WIDTH)


class Case(NamedTuple):
    rank: int
    norm: float = 0.0  # ‖A − A₀‖_F; 0 for a draw without A₀
    on_input_side: bool = False

    @property
    def start(self) -> Tensor | None:
        return random(self.rank, WIDTH, seed=1) if self.norm else None

    @property
    def B(self) -> Tensor | None:  # noqa: N802
        return random(D_OUT, self.rank, seed=2) * 0.5 ** torch.arange(self.rank) if self.on_input_side else None


CASES = {
    "update": Case(6),
    "more rows than inputs hold": Case(30),
    "A that has moved little": Case(6, norm=2.0),
    "A that has moved far": Case(6, norm=50.0),
    "input side": Case(6, norm=5.0, on_input_side=True),
    "input side of A that has moved far": Case(6, norm=50.0, on_input_side=True),
}


def draw(case: Case, other: Tensor) -> Tensor:
    X, start, B = anisotropic(), case.start, case.B
    stack = Stack({"other": other, "X": X} | ({} if start is None else {"start": start}))
    found = stack.directions
    of_B = None if B is None else Stack({"B": B.T}).directions["B"]
    return drawn_cosines(stack, found["other"], found["X"], case.rank, found.get("start"), case.norm, of_B)


def draw_in_full(case: Case, other: Tensor, draws: int) -> Tensor:
    """N X, A₀ + c N X or B (A₀ + c N X) multiplied out, and dense SVDs."""
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
def test_draws_are_distributed_as_draws_multiplied_out(case: Case) -> None:
    other = random(3, TOKENS, seed=4) @ anisotropic() + 0.05 * random(3, WIDTH, seed=5)
    ours, theirs = numbers(shared(draw(case, other))), numbers(shared(draw_in_full(case, other, draws=2000)))
    for name, values in ours.items():
        expected = theirs[name]
        assert len(values) == DRAWS
        assert abs(values.mean() - expected.mean()) <= 4 * expected.std() / DRAWS**0.5 + 1e-9, name
        if expected.std() > 1e-9:
            assert ks_2samp(values.numpy(), expected.numpy()).pvalue > 1e-3, name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_drawn_directions_are_orthonormal(case: Case) -> None:
    D = draw(case, torch.eye(WIDTH).double())  # in coordinates of the axes
    assert D.shape == (DRAWS, min(case.rank, WIDTH), WIDTH)
    assert_close(D @ D.mT, torch.eye(D.shape[1], dtype=torch.float64).expand(DRAWS, -1, -1))


def test_drawn_directions_lie_in_the_span_of_few_inputs() -> None:
    X = random(7, WIDTH, seed=0)
    stack = Stack({"X": X})
    inputs = stack.directions["X"]
    cosines = drawn_cosines(stack, inputs, inputs, rank=4)
    assert_close(shared(cosines).cos2, torch.ones(DRAWS, 4, dtype=torch.float64))


def test_a_small_update_stays_in_the_span_of_the_start() -> None:
    start = random(4, WIDTH, seed=1)
    stack = Stack({"start": start, "X": anisotropic()})
    fixed, inputs = stack.directions["start"], stack.directions["X"]
    cosines = drawn_cosines(stack, fixed, inputs, rank=4, start=fixed, norm=1e-9)
    assert_close(shared(cosines).cos2, torch.ones(DRAWS, 4, dtype=torch.float64))


def test_draws_are_the_same_each_time() -> None:
    other = random(3, WIDTH, seed=4)
    assert_close(draw(CASES["update"], other), draw(CASES["update"], other), rtol=0, atol=0)


def test_isotropic_inputs_share_no_more_than_random_subspaces() -> None:
    low, high, width = 4, 8, 32
    stack = Stack({"arm": random(low, width, seed=1), "X": random(1000, width, seed=0)})
    fixed, inputs = stack.directions["arm"], stack.directions["X"]
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


def compare(low: Tensor, high: Tensor) -> tuple[Shared, Shared]:
    """What two updates share, and what the first shares with draws that replace the second."""
    stack = Stack({"low": low, "high": high, "X": dominated()})
    fixed, other, inputs = (stack.directions[name] for name in ("low", "high", "X"))
    return shared(stack.cosines(fixed, other)), shared(drawn_cosines(stack, fixed, inputs, rank=len(high)).mT)


def test_an_update_within_the_dominant_inputs_is_beyond_random_subspaces_and_not_beyond_the_draws() -> None:
    p = []
    for seed in range(20):
        measured, draws = compare(within_dominant(seed), random(HIGH, 400, seed=100 + seed) @ dominated())
        assert k_star(measured.cos2.numpy(), LOW, HIGH, WIDE) == LOW
        p.append(float((draws.corner >= measured.corner).double().mean()))
    assert 0.25 < sum(p) / len(p) < 0.75  # p would be uniform if each seed had its own draws
    assert sum(value < 0.05 for value in p) <= 4


def test_a_direction_shared_outside_the_inputs_is_beyond_the_draws() -> None:
    low, high = within_dominant(0), random(HIGH, 400, seed=1) @ dominated()
    low[0, -1] = high[0, -1] = 1000.0  # few inputs point there
    measured, draws = compare(low, high)
    assert measured.corner > draws.corner.max()
