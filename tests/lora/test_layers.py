"""What arms on a base compute, from which starts, and what they leave alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.testing import assert_close

from deltaw.lora.arm import Arm
from deltaw.lora.attach import attach
from deltaw.lora.layers import ArmsLinear, Moment, parameters_of
from deltaw.lora.snapshot import adapter_config, adapter_tensors
from deltaw.model.projections import projections
from deltaw.model.split import split
from tests.support.architectures import ARCHITECTURES, Architecture
from tests.support.arms import arm
from tests.support.rows import logits


@pytest.mark.parametrize(("scaling", "scale"), [("constant", 16), ("alpha/r", 2), ("rslora", 16 / math.sqrt(8))])
def test_peft_reads_the_scale_that_was_trained(scaling: str, scale: float) -> None:
    one = arm(rank=8, scaling=scaling)
    base = nn.ModuleDict({name: nn.Linear(9, 9) for name in ("q_proj", "v_proj", "o_proj")})
    attach(base, ["q_proj", "v_proj"], [one])
    config = adapter_config(one, base, "base", "CAUSAL_LM")
    alpha, rank = config["lora_alpha"], config["r"]
    assert isinstance(alpha, float) and isinstance(rank, int)
    assert one.scale == pytest.approx(scale)
    assert alpha / (math.sqrt(rank) if config["use_rslora"] else rank) == pytest.approx(scale)
    assert config["target_modules"] == ["q_proj", "v_proj"]


def test_each_block_of_rows_sees_its_own_factors_alone() -> None:
    torch.manual_seed(0)
    arms = [arm("a", 2), arm("b", 5, "rslora")]
    layer = ArmsLinear(nn.Linear(6, 4), "layers.0.q_proj", arms)
    for B in layer.B:
        nn.init.normal_(B)
    x = torch.randn(4, 3, 6)
    expected = [
        layer.base(x[2 * k : 2 * k + 2]) + arms[k].scale * linear(x[2 * k : 2 * k + 2], layer.B[k] @ layer.A[k])
        for k in range(2)
    ]
    torch.testing.assert_close(layer(x), torch.cat(expected))
    layer(x)[:2].sum().backward()
    assert layer.A[0].grad is not None and layer.A[0].grad.abs().sum() > 0
    assert layer.A[1].grad is None or not layer.A[1].grad.any()


def zeroed(
    name: str = "a", module: str = "q", moment: tuple[int, int, int] = (3, 1, 0), tokens: int = 50, rows: int = 4
) -> torch.Tensor:
    """Where dropout of 0.1 zeroes the inputs of one arm, tokens × rows × width; checks the values of the others."""
    layer = ArmsLinear(nn.Linear(20, 20, bias=False), module, [replace(arm(name, 20), dropout=0.1)])
    layer.moment = Moment(*moment)
    for weight, value in (
        (layer.weight, torch.zeros(20, 20)),
        (layer.A[0], torch.eye(20)),
        (layer.B[0], torch.eye(20)),
    ):
        weight.data = value
    scale, x = layer.arms[0].scale, torch.ones(rows, tokens, 20)
    assert_close(layer.eval()(x), scale * x)
    y = layer.train()(x)
    assert_close(y, torch.where(y == 0, 0, scale / 0.9))
    return (y == 0).transpose(0, 1)


def test_dropout_zeroes_its_share_depending_only_on_arm_module_and_moment() -> None:
    first = zeroed()
    assert first.float().mean().item() == pytest.approx(0.1, abs=0.02)
    torch.rand(7)  # other draws change nothing
    assert torch.equal(first, zeroed())
    assert torch.equal(first, zeroed(tokens=60)[:50])  # as rows are padded when arms share a pass
    moments = [(4, 1, 0), (3, 0, 0), (3, 1, 1), (1, 3, 0)]
    others = [zeroed("b"), zeroed(module="v"), *(zeroed(moment=moment) for moment in moments)]
    for n, other in enumerate(others):
        for one in (first, *others[:n]):
            assert (one & other).float().mean().item() == pytest.approx(0.01, abs=0.008)  # as independent masks do


def test_starts_depend_only_on_arm_and_module_and_are_as_wide_as_kaiming() -> None:
    def start(name: str, module: str, company: list[Arm]) -> torch.Tensor:
        torch.manual_seed(len(company))
        layer = ArmsLinear(nn.Linear(400, 9), module, [*company, arm(name, 8)])
        assert not any(B.any() for B in layer.B)
        return layer.A[-1].detach()

    first = start("a", "layers.0.q_proj", [])
    assert torch.equal(first, start("a", "layers.0.q_proj", [arm("b"), arm("c")]))
    for other in (start("b", "layers.0.q_proj", []), start("a", "layers.0.v_proj", [])):
        assert torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1].abs() < 0.1
    assert first.abs().max() <= 1 / math.sqrt(400)
    assert first.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.05)


def test_a_frozen_a_starts_as_a_trained_one_and_is_kept_and_not_trained() -> None:
    base = nn.Sequential(nn.Linear(6, 4))
    attach(base, ["0"], [arm("a"), arm("a", control="frozen_a")])
    assert [factor.requires_grad for k in range(2) for factor in parameters_of(base, k)] == [True, True, False, True]
    free, frozen = (adapter_tensors(base, k)["base_model.model.0.lora_A.weight"] for k in range(2))
    assert torch.equal(free, frozen)


def test_only_the_factors_of_all_arms_are_trained() -> None:
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4))
    attach(base, ["0"], [arm("a"), arm("b")])
    trained = {id(p) for p in base.parameters() if p.requires_grad}
    assert trained == {id(p) for k in range(2) for p in parameters_of(base, k)}
    assert len(trained) == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_arm_sees_its_own_rows_alone_in_every_linear_layer_of_every_architecture(architecture: Architecture) -> None:
    def on(arms: list[Arm]) -> torch.Tensor:
        """Logits of each arm's two rows, with B off zero."""
        model = architecture.build(dtype=torch.float64)
        split(model, ["all-linear"])
        attach(model, projections(model, ["all-linear"]), arms)
        for k, one in enumerate(arms):
            for factor in parameters_of(model, k)[1::2]:
                factor.data.normal_(std=0.05 * one.rank, generator=torch.Generator().manual_seed(one.rank))
        return logits(model.double(), 5, repeats=len(arms))

    one, other = arm("r2-s0", rank=2), arm("r3-s0", rank=3)
    shared, alone = on([one, other]), [on([one]), on([other])]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    assert_close(shared, torch.cat(alone), rtol=0, atol=1e-5 if architecture.model_type == "codegen" else 1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_the_output_may_be_changed_in_place_and_its_gradients_stay_right(bias: bool) -> None:
    """Some models scale q in place; with a bias, the base's output is a view."""
    layer = ArmsLinear(nn.Linear(6, 4, bias), "q", [arm("a", 2), arm("b", 3)]).double()
    for B in layer.B:
        nn.init.normal_(B)
    factors = [*layer.A, *layer.B]
    x = torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y *= 2
    updates = [layer.arms[k].scale * linear(x_k, layer.B[k] @ layer.A[k]) for k, x_k in enumerate(x.chunk(2))]
    expected = 2 * (layer.base(x) + torch.cat(updates))
    assert_close(y, expected)
    found, right = (torch.autograd.grad((one**3).sum(), [x, *factors]) for one in (y, expected))
    assert_close(found, right)


@pytest.mark.parametrize(("mixed", "kept"), [(True, torch.bfloat16), (False, torch.float32)])
def test_products_are_in_the_dtype_of_autocast_or_of_the_factors(mixed: bool, kept: torch.dtype) -> None:
    layer = ArmsLinear(nn.Linear(6, 4).bfloat16().requires_grad_(False), "q", [arm("a", 2)])
    x = torch.randn(2, 3, 6).bfloat16()
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), hooks:
        y = layer(x)
    assert y.dtype is torch.bfloat16
    assert {one.dtype for one in saved if one.shape[-1] == 2} == {kept}  # A x, and B
    y.float().sum().backward()
    assert layer.B[0].grad is not None and layer.B[0].grad.dtype is torch.float32
    assert any(one is x for one in saved)  # x itself is kept, in its own dtype: no copy for each arm and site
