"""Shadows learn what the formula says, and leave the arms alone."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear

from deltaw.lora.layers import ArmsLinear, Moment
from deltaw.lora.shadows import shadows_of, sign_of
from tests.support.arms import arm

ARMS = [arm("a", 3), arm("b", 2, "rslora"), arm("c", 2, control="random")]
ROWS, TOKENS, WIDTH = 2, 4, 6  # rows of each arm


def layer_with(shadows: int, dtype: torch.dtype) -> ArmsLinear:
    """A layer with random B; the arms' factors do not depend on the number of shadows."""
    torch.manual_seed(0)
    layer = ArmsLinear(nn.Linear(WIDTH, 5), "m", ARMS, shadows_of(ARMS, shadows)).to(dtype)
    layer.base.requires_grad_(False)
    for B in layer.B:
        nn.init.normal_(B)
    return layer


def signs_of(shadows: int, tokens: int, seed: int) -> Tensor:
    """Random signs; 0 for the control."""
    draws = torch.randint(0, 2, (len(ARMS) * ROWS, tokens, shadows), generator=torch.Generator().manual_seed(seed))
    return (2 * draws - 1) * (torch.arange(len(ARMS) * ROWS) < 2 * ROWS).long()[:, None, None]


def rows(dtype: torch.dtype) -> Tensor:
    return torch.randn(
        len(ARMS) * ROWS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype
    ).requires_grad_()


def gradients(layer: ArmsLinear, x: Tensor, of: list[Tensor]) -> list[Tensor]:
    """Of a loss that is not linear in the layer's output, so that the errors depend on it."""
    return list(torch.autograd.grad((layer(x) ** 3).sum(), of))


@given(shadows=st.integers(1, 3), packed=st.booleans(), flat=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_shadows_get_the_gradients_of_y_plus_s_times_u_minus_stopgrad_u(
    shadows: int, packed: bool, flat: bool, seed: int
) -> None:
    layer, x = layer_with(shadows, torch.float64), rows(torch.float64)
    signs = signs_of(shadows, TOKENS if packed else 1, seed)
    factors = [*layer.A[len(ARMS) :], *layer.B[len(ARMS) :]]
    layer.eval()
    plain, parts = layer(x), []
    for k in range(len(ARMS)):
        block = slice(k * ROWS, (k + 1) * ROWS)
        part = plain[block]
        for place, shadow in enumerate(shadows_of(ARMS, shadows), len(ARMS)):
            if shadow.name.startswith(f"{ARMS[k].name}-"):
                u = shadow.scale * linear(linear(x[block].detach(), layer.A[place]), layer.B[place])
                part = part + signs[block, :, shadow.shadow - 1, None] * (u - u.detach())
        parts.append(part)
    expected = torch.autograd.grad((torch.cat(parts) ** 3).sum(), factors)
    layer.train()
    layer.moment = Moment(signs=signs)
    found = gradients(layer, x.flatten(0, 1) if flat else x, factors)  # some models flatten rows and tokens
    torch.testing.assert_close(found, list(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spoil", [lambda weight: weight, lambda weight: weight.fill_(torch.inf)], ids=["", "infinite"])
def test_an_arm_does_not_notice_its_shadows(dtype: torch.dtype, spoil: Callable[[Tensor], Tensor]) -> None:
    without, beside, x = layer_with(0, dtype), layer_with(2, dtype), rows(dtype)
    for mine, other in zip((*beside.A[:3], *beside.B[:3]), (*without.A, *without.B), strict=True):
        mine.data.copy_(other)
    for weight in (*beside.A[3:], *beside.B[3:]):
        spoil(weight.data)
    beside.moment = Moment(signs=signs_of(2, 1, 0))
    assert torch.equal(beside(x), without(x))
    of_arms = [gradients(one, x, [x, *one.A[:3], *one.B[:3]]) for one in (beside, without)]
    assert all(map(torch.equal, *of_arms))


def test_only_arms_of_the_task_have_shadows_which_are_named_after_them() -> None:
    shadows = shadows_of(ARMS, 2)
    assert [one.name for one in shadows] == ["a-shadow1", "a-shadow2", "b-shadow1", "b-shadow2"]
    assert {one.control for one in shadows} == {"shadow"}
    assert [(one.rank, one.scaling, one.shadow) for one in shadows[1:3]] == [(3, "alpha/r", 2), (2, "rslora", 1)]
    assert shadows_of(ARMS, 0) == []


def test_signs_are_even_and_independent_between_shadows_arms_and_epochs() -> None:
    """Each mean of 4,000 signs, or of products of signs, has a standard deviation of 0.016."""
    names = [one.name for one in shadows_of([arm("r8-s0"), ARMS[0]], 2)]
    draws = torch.tensor(
        [[sign_of(name, n, epoch) for n in range(4000)] for name in names for epoch in (0, 1)], dtype=torch.float64
    )
    correlations = draws @ draws.T / 4000
    assert (correlations - torch.eye(len(draws), dtype=torch.float64)).abs().max() < 5 * 0.016
    assert draws.mean(1).abs().max() < 5 * 0.016
