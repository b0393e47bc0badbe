"""A base in 4 bits: quantised here or stored so, in every architecture, trained on, and what is refused.

Every width is a multiple of 64: what bitsandbytes reads at others depends on the processor.
"""

import json
import os
import platform
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.functional import QuantState, create_dynamic_map, dequantize_4bit, get_4bit_type
from bitsandbytes.nn import Linear4bit
from torch import nn
from torch.nn.functional import linear
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from deltaw.analysis.pairs import AdapterPair
from deltaw.config.schema import NF4
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.attach import attach
from deltaw.lora.layers import parameters_of
from deltaw.lora.snapshot import adapter_config
from deltaw.model.four_bits import BLOCK, CODE_ERROR, SCALE_ERROR, check_dequantising, quantise
from deltaw.model.loading import load_base
from deltaw.model.names import is_conv1d, linear_layers, widths
from deltaw.model.projections import projections
from deltaw.model.split import split
from deltaw.run.directory import RunDirectory
from tests.support.architectures import ARCHITECTURES, Architecture
from tests.support.arms import arm
from tests.support.rows import inputs
from tests.support.runs import assert_same_run, at_step
from tests.support.tiny import factors, largest_difference, make_base, make_pairs, metrics, run

IDS = torch.arange(40).view(2, 20)
SETTINGS = ["model.dtype=nf4", "trainer.precision=32-true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    make_base(folder / "base", width=128)  # with 64 of k and v
    make_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return run(folder, *SETTINGS, "run.name=trained")


def store(base: Path, stored: Path) -> Any:
    """Save the model in `base` in 4 bits as transformers does; returns it."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
    )
    shutil.copytree(base, stored)
    model.save_pretrained(stored)
    return model


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_layer_computes_with_what_its_bytes_mean_before_and_after_a_pass_without_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a CPU on which bitsandbytes would pack the weights anew in such a pass."""
    torch.manual_seed(0)
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    full, model = (ARCHITECTURES[name].wide().build(dtype=torch.bfloat16) for _ in range(2))
    split(full)
    split(model)
    quantise(model)
    for module in linear_layers(full):
        before: Any = full.get_submodule(module)
        layer: Any = model.get_submodule(module)
        W = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        W_before = (before.weight.T if is_conv1d(before) else before.weight).float()
        assert (W - W_before).abs().max() < (CODE_ERROR + SCALE_ERROR) * W_before.abs().max()
        x = torch.randn(2, 3, widths(layer)[0], dtype=torch.bfloat16, requires_grad=True)
        with torch.no_grad():
            evaluated = layer.eval()(x.detach())
        y = layer.train()(x)
        y.sum().backward()
        assert torch.equal(y, evaluated)
        expected = linear(x.float(), W, None if layer.bias is None else layer.bias.float())
        assert_close(y.float(), expected, rtol=2**-7, atol=2**-5)
        assert x.grad is not None
        assert_close(x.grad.float(), W.sum(0).expand_as(x), rtol=2**-7, atol=2**-5)


def test_a_base_is_what_transformers_makes_of_it_whether_quantised_here_or_stored_so(
    folder: Path, tmp_path: Path
) -> None:
    reference = store(folder / "base", tmp_path / "stored")
    expected = reference(input_ids=IDS).logits
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    for path in (folder / "base", tmp_path / "stored"):
        model = load_base(str(path), tokenizer, "nf4").model.eval()  # in training, short rows attend otherwise
        quantise(model)
        assert torch.equal(model(input_ids=IDS).logits, expected)
        assert model.num_parameters() == reference.num_parameters()
        assert model.get_parameter("lm_head.weight").dtype is torch.bfloat16


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_arm_has_the_same_logits_and_gradients_with_other_arms_as_alone(architecture: Architecture) -> None:
    """As far as bfloat16 rounds alike: it need not in batches of other sizes."""

    def on(arms: list[Arm]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits of each arm's two rows, with B off zero, and the gradients of its factors in one."""
        model = architecture.wide().build(dtype=torch.bfloat16)
        split(model, ["all-linear"])
        before = {name: widths(model.get_submodule(name)) for name in linear_layers(model)}
        assert not any(width % BLOCK for d_in_and_out in before.values() for width in d_in_and_out)
        transposed = any(is_conv1d(model.get_submodule(name)) for name in before)
        quantise(model)
        assert {name: widths(model.get_submodule(name)) for name in linear_layers(model)} == before
        attach(model, projections(model, ["all-linear"]), arms)
        assert adapter_config(arms[0], model, "base", "CAUSAL_LM")["fan_in_fan_out"] == transposed
        for k, one in enumerate(arms):
            for factor in parameters_of(model, k)[1::2]:
                factor.data.normal_(std=0.05 * one.rank, generator=torch.Generator().manual_seed(one.rank))
        out: torch.Tensor = model(**inputs(model, 5, repeats=len(arms))).logits.float()
        out.square().sum().backward()
        gradients = [[factor.grad for factor in parameters_of(model, k)] for k in range(len(arms))]
        assert all(gradient is not None and gradient.any() for of_arm in gradients for gradient in of_arm)
        return out.detach(), [torch.cat([g.flatten() for g in of_arm if g is not None]) for of_arm in gradients]

    one, other = arm("r2-s0", rank=2), arm("r3-s0", rank=3)
    (together, gradients), apart = on([one, other]), [on([one]), on([other])]
    logits = torch.cat([rows for rows, _ in apart])
    assert relative_distance(apart[0][0], apart[1][0]) > 1 / 2
    assert relative_distance(together, logits) < 1 / 16
    for gradient, (_, [alone]) in zip(gradients, apart, strict=True):
        assert relative_distance(gradient, alone) < 1 / 4


def relative_distance(x: torch.Tensor, expected: torch.Tensor) -> float:
    return ((x - expected).norm() / expected.norm()).item()


def in_4_bits(*shapes: tuple[int, int]) -> nn.Module:
    """A layer of each shape, d_out × d_in, without weights."""
    return nn.ModuleList(Linear4bit(d_in, d_out, device="meta") for d_out, d_in in shapes)


def test_every_shape_in_multiples_of_64_is_read_as_4_bits_allow() -> None:
    sizes = (64, 128, 320, 1024)
    check_dequantising(in_4_bits(*((d_out, d_in) for d_out in sizes for d_in in sizes)), torch.device("cpu"))


def test_what_4_bits_explain_is_half_of_the_widest_gap_of_a_weight_and_of_its_scale() -> None:
    assert get_4bit_type(NF4, "cpu").diff().max().item() / 2 == pytest.approx(CODE_ERROR, rel=1e-3)
    assert create_dynamic_map().diff().max().item() / 2 + 2**-8 == pytest.approx(SCALE_ERROR, rel=1e-2)


@pytest.mark.parametrize(("share", "refused"), [(0.99, False), (1.01, True), (float("nan"), True)])
def test_one_weight_is_enough_to_refuse_a_shape_and_only_what_4_bits_do_not_explain(
    share: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(W: torch.Tensor, state: object) -> torch.Tensor:
        V = W.float().flatten()
        V[BLOCK + 5] += share * (CODE_ERROR * V[BLOCK : 2 * BLOCK].abs().max() + SCALE_ERROR * V.abs().max())
        return V.view_as(W)

    state = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", lambda W, **settings: (W, state))
    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", read)
    if refused:
        with pytest.raises(UserError, match=r"in the shape of 0 \(d_out × d_in = 8 × 40\): "):
            check_dequantising(in_4_bits((8, 40)), torch.device("cpu"))
    else:
        check_dequantising(in_4_bits((8, 40)), torch.device("cpu"))


@pytest.mark.parametrize("stored", [False, True], ids=["quantised here", "stored so"])
def test_a_base_that_would_be_read_wrongly_is_refused_before_there_is_a_run(
    folder: Path, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(packed: torch.Tensor, state: QuantState) -> torch.Tensor:
        W = dequantize_4bit(packed, state)
        return W.roll(1, 0) if state.shape in ((64, 128), (128, 192)) else W

    (store if stored else shutil.copytree)(folder / "base", tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", read)
    with pytest.raises(UserError) as error:
        run(tmp_path, *SETTINGS)
    message = str(error.value)
    assert "model.layers.0.self_attn.k_proj (d_out × d_in = 64 × 128) and 1 more of the 4 shapes" in message
    assert f"on this cpu ({platform.machine()})" in message and "give model.dtype=bfloat16, a GPU" in message
    assert not (tmp_path / "runs").exists()


def moved(run: Path) -> torch.Tensor:
    """By how much the factors of the larger arm moved, in one."""
    start, end = factors(run, "r6-s0", 0), factors(run, "r6-s0")
    return torch.cat([(end[name] - start[name]).flatten() for name in end])


def test_a_run_learns_and_records_its_base(folder: Path, trained: Path) -> None:
    losses = [line.split(",") for line in metrics(trained) if ",r6-s0,val/loss," in line]
    assert float(losses[-1][3]) < float(losses[0][3]) - 0.1
    tensors = factors(trained, "r6-s0")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    record = json.loads((trained / "run.json").read_text())
    assert record["base"]["dtype"] == "nf4"
    adapter = RunDirectory(trained).adapter("r6-s0")
    site = next(iter(adapter.sites))
    full = AutoModelForCausalLM.from_pretrained(folder / "base").get_parameter(f"{site.module}.weight")
    assert torch.equal(AdapterPair(adapter, adapter).weight(site), full)
    kept = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert len(kept) == 2 * 2 * 2 * 6 + 1 and not any("quant" in name or name.endswith("weight") for name in kept)


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(
    folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *SETTINGS, "run.name=stopped")
    assert_same_run(run(folder, *SETTINGS, "run.name=stopped"), trained)


def test_checkpointing_changes_nothing_and_mixed_precision_little(folder: Path, trained: Path) -> None:
    thrifty = run(folder, *SETTINGS, "run.name=thrifty", "model.gradient_checkpointing=true")
    mixed = run(folder, SETTINGS[0], "trainer.precision=bf16-mixed", "run.name=mixed")
    assert largest_difference(factors(thrifty, "r6-s0"), factors(trained, "r6-s0")) == 0
    assert 0 < relative_distance(moved(mixed), moved(trained)) < 1 / 4


def test_a_base_that_is_stored_in_4_bits_is_trained_as_one_quantised_here_without_a_record_of_w(
    folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(folder / "base", tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    done = run(tmp_path, *SETTINGS)
    assert largest_difference(factors(done, "r6-s0"), factors(trained, "r6-s0")) == 0
    assert json.loads((done / "run.json").read_text())["weights"] == {}
    told = capsys.readouterr().out
    assert "is in 4 bits, and W is read in full" in told and "the run goes on without a record of W" in told


def test_a_fused_layer_that_is_stored_in_4_bits_is_refused_and_others_of_its_model_are_not(tmp_path: Path) -> None:
    store(ARCHITECTURES["gpt2"].wide().save(tmp_path / "full"), tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(UserError, match=r"c_attn of GPT2LMHeadModel fuses q, k and v and is stored in 4 bits"):
        run(tmp_path, *SETTINGS)
    done = run(tmp_path, *SETTINGS, "arms.projections=[o]", "trainer.max_steps=1")
    assert len(RunDirectory(done).adapter("r2-s0").sites) == 2


@pytest.mark.parametrize(
    ("stored", "overrides", "words"),
    [
        (None, ["model.dtype=nf4"], "trainer.precision=64-true and model.dtype=nf4"),
        ({"quant_method": "gptq", "bits": 4}, [], "is quantised by gptq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, SETTINGS, "is quantised by bitsandbytes"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            ["model.dtype=bfloat16"],
            "is stored in 4 bits, and model.dtype=bfloat16: give model.dtype=nf4",
        ),
    ],
    ids=["64-true", "gptq", "8 bits", "not asked for"],
)
def test_what_cannot_be_in_4_bits_is_refused(
    folder: Path, tmp_path: Path, stored: dict[str, object] | None, overrides: list[str], words: str
) -> None:
    shutil.copytree(folder / "base", tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"quantization_config": stored}))
    with pytest.raises(UserError) as error:
        run(tmp_path, *overrides)
    assert words in str(error.value)


def test_without_bitsandbytes_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltaw.model.four_bits.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install bitsandbytes"):
        run(folder, *SETTINGS, "run.name=missing")
