"""Arms that sit out a step stay as they are, and the others learn as with AdamW alone."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import AdamW
from torch.testing._internal.distributed.fake_pg import FakeStore

from deltaw.training.optimiser import AdamWPerArm

RANKS = [2, 3, 5]


@pytest.fixture
def group_of_two() -> Iterator[None]:
    """A fake process group, of which this is process 0."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


def arms(dtype: torch.dtype = torch.float64) -> list[list[nn.Parameter]]:
    """Factors A and B of each arm."""
    draw = torch.Generator().manual_seed(0)
    return [
        [nn.Parameter(torch.randn(shape, generator=draw, dtype=dtype)) for shape in ((rank, 7), (4, rank))]
        for rank in RANKS
    ]


def per_arm(weights: list[list[nn.Parameter]], **settings: bool) -> AdamWPerArm:
    groups = [{"params": params, "lr": 1e-2 * (k + 1), **settings} for k, params in enumerate(weights)]
    return AdamWPerArm(groups, weight_decay=0.1)


def arms_of(optimizer: AdamWPerArm) -> list[list[Tensor]]:
    return [group["params"] for group in optimizer.param_groups]


def gradient(weight: Tensor, step: int, k: int) -> Tensor:
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(100 * step + k), dtype=weight.dtype)


def take(optimizer: AdamWPerArm, step: int, out: list[bool]) -> None:
    """A step that some arms sit out, whose gradients are NaN; they stay the same to the bit."""

    def closure() -> str:
        for k, arm in enumerate(arms_of(optimizer)):
            for weight in arm:
                weight.grad = gradient(weight, step, k) * (torch.nan if out[k] else 1)
        optimizer.sits_out = torch.tensor(out).float()
        return "loss"

    weights = [(weight, sits_out) for arm, sits_out in zip(arms_of(optimizer), out, strict=True) for weight in arm]
    before = [(weight.detach().clone(), deepcopy(dict(optimizer.state[weight]))) for weight, _ in weights]
    assert optimizer.step(closure) == "loss"
    for (weight, sits_out), (old, state) in zip(weights, before, strict=True):
        assert torch.equal(weight, old) == sits_out
        for name, value in optimizer.state[weight].items():
            assert not sits_out or torch.equal(value, state.get(name, torch.zeros_like(value)))


@given(outs=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5), fused=st.booleans())
def test_each_arm_takes_the_steps_of_adamw_alone_and_none_of_those_that_it_sits_out(
    outs: list[list[bool]], fused: bool
) -> None:
    weights = arms()
    optimizer = per_arm(weights, fused=fused)
    for step, out in enumerate(outs):
        take(optimizer, step, out)
    for k, (expected, found) in enumerate(zip(arms(), weights, strict=True)):
        alone = AdamW(expected, lr=1e-2 * (k + 1), weight_decay=0.1, foreach=False)
        for step in (step for step, out in enumerate(outs) if not out[k]):
            for weight in expected:
                weight.grad = gradient(weight, step, k)
            alone.step()
        for weight, other in zip(found, expected, strict=True):
            torch.testing.assert_close(weight, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_arm_learns_the_same_in_any_company_to_the_bit(dtype: torch.dtype) -> None:
    together, alone = arms(dtype), arms(dtype)[1:2]
    first, second = per_arm(together), AdamWPerArm([{"params": alone[0], "lr": 2e-2}], weight_decay=0.1)
    for step in range(4):
        take(first, step, [step == 1, False, step == 2])
        second.sits_out = torch.zeros(1)
        for weight in alone[0]:
            weight.grad = gradient(weight, step, 1)
        second.step(lambda: None)
    assert all(torch.equal(weight, other) for weight, other in zip(together[1], alone[0], strict=True))


def test_moments_and_counts_are_restored_to_the_bit() -> None:
    whole, parts = arms(), arms()
    first, second = per_arm(whole), per_arm(parts)
    for step in range(6):
        take(first, step, [step == 1, False, step == 4])
        if step == 3:
            state = deepcopy(second.state_dict())
            second = per_arm(parts)
            second.load_state_dict(state)
        take(second, step, [step == 1, False, step == 4])
    assert all(torch.equal(*pair) for pair in zip(chain(*whole), chain(*parts), strict=True))
    assert [int(first.state[params[0]]["step"]) for params in whole] == [5, 6, 5]


def test_a_checkpoint_from_another_device_does_not_decide_whether_to_fuse() -> None:
    whole, parts = arms(), arms()
    first, second = per_arm(whole), per_arm(parts)
    for group in second.param_groups:
        group["fused"] = False  # as on a device whose kernel would let an arm take a step that it is to sit out
    take(first, 0, [False, False, False])
    second.load_state_dict(deepcopy(first.state_dict()))
    assert [group["fused"] for group in second.param_groups] == [False, False, False]
    assert second.state[parts[0][0]]["step"] == first.state[whole[0][0]]["step"]


def test_parts_of_a_process_are_as_parts_of_the_whole(group_of_two: None) -> None:
    mesh = init_device_mesh("cpu", (2,))
    whole = arms()
    shared = [
        [nn.Parameter(distribute_tensor(weight.detach().clone(), mesh, [Shard(0)])) for weight in arm] for arm in whole
    ]
    first, second = per_arm(whole), per_arm(shared)
    for step in range(3):
        out = [step == 1, False, False]
        take(first, step, out)
        for k, arm in enumerate(shared):
            for weight in arm:
                whole_gradient = gradient(weight, step, k) * (torch.nan if out[k] else 1)
                weight.grad = distribute_tensor(whole_gradient, mesh, [Shard(0)])
        second.sits_out = torch.tensor(out).float()
        second.step(lambda: None)
    for mine, weight in zip(chain(*shared), chain(*whole), strict=True):
        assert isinstance(mine, DTensor)
        part = mine.to_local().detach()
        torch.testing.assert_close(part, weight.detach()[: len(part)], rtol=1e-12, atol=1e-12)
