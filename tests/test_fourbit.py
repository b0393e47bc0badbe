"""A base in 4 bits: quantised here or stored so, in every architecture, trained on, and what is refused."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch.nn.functional import linear
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from deltaw.arm import Arm, adapter_config, attach, parameters_of
from deltaw.cli import UserError
from deltaw.fourbit import quantise
from deltaw.model import load_base
from deltaw.projection import is_conv1d, linear_layers, projections, widths
from deltaw.run import RunDirectory
from deltaw.split import split
from deltaw.subject import Subject
from tests.architectures import ARCHITECTURES, Architecture
from tests.test_arm import arm
from tests.test_projection import inputs
from tests.test_training import assert_same_run, at_step
from tests.tiny import factors, largest_difference, make_pairs, metrics, run

IDS = torch.arange(40).view(2, 20)
SETTINGS = ["model.dtype=nf4", "trainer.precision=32-true"]


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
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    full, model = (ARCHITECTURES[name].build(dtype=torch.bfloat16) for _ in range(2))
    split(full)
    split(model)
    quantise(model)
    for module in linear_layers(full):
        before: Any = full.get_submodule(module)
        layer: Any = model.get_submodule(module)
        W = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        W_before = (before.weight.T if is_conv1d(before) else before.weight).float()
        assert (W - W_before).abs().max() < 0.16 * W_before.abs().max()  # half of NF4's widest gap, and the scale's
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
        model = load_base(str(path), tokenizer, "nf4").model
        quantise(model)
        assert torch.equal(model(input_ids=IDS).logits, expected)
        assert model.num_parameters() == reference.num_parameters()
        assert model.get_parameter("lm_head.weight").dtype is torch.bfloat16


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_arm_in_company_has_the_logits_and_gradients_that_it_has_alone(architecture: Architecture) -> None:
    def on(arms: list[Arm]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits of each arm's two rows, with B off zero, and the gradients of its factors."""
        model = architecture.build(dtype=torch.bfloat16)
        split(model, ["all-linear"])
        before = {name: widths(model.get_submodule(name)) for name in linear_layers(model)}
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
        gradients = [factor.grad for k in range(len(arms)) for factor in parameters_of(model, k)]
        assert all(gradient is not None and gradient.any() for gradient in gradients)
        return out.detach(), [gradient for gradient in gradients if gradient is not None]

    one, other = arm("r2-s0", rank=2), arm("r3-s0", rank=3)
    together, apart = on([one, other]), [on([one]), on([other])]
    assert (apart[0][0] - apart[1][0]).abs().max() > 0.5
    assert_close(together[0], torch.cat([rows for rows, _ in apart]), rtol=2**-6, atol=2**-4)
    for gradient, alone in zip(together[1], apart[0][1] + apart[1][1], strict=True):
        assert_close(gradient, alone, rtol=2**-4, atol=2**-4 * alone.abs().max().item())


def test_a_run_learns_and_tells_of_its_base(folder: Path, trained: Path) -> None:
    losses = [line.split(",") for line in metrics(trained) if ",r6-s0,val/loss," in line]
    assert float(losses[-1][3]) < float(losses[0][3]) - 0.1
    tensors = factors(trained, "r6-s0")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    record = json.loads((trained / "run.json").read_text())
    assert record["base"]["dtype"] == "nf4"
    adapter = RunDirectory(trained).adapter("r6-s0")
    site = next(iter(adapter.sites))
    full = AutoModelForCausalLM.from_pretrained(folder / "base").get_parameter(f"{site.module}.weight")
    assert torch.equal(Subject(adapter, adapter).weight(site), full)
    kept = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert len(kept) == 2 * 2 * 6 + 1 and not any("quant" in name or name.endswith("weight") for name in kept)


def test_a_run_told_to_stop_goes_on_as_if_it_had_not(
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
    assert 0 < largest_difference(factors(mixed, "r6-s0"), factors(trained, "r6-s0")) < 0.01


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
    store(ARCHITECTURES["gpt2"].save(tmp_path / "full"), tmp_path / "base")
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
    monkeypatch.setattr("deltaw.fourbit.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'deltaw\[4bit\]'"):
        run(folder, *SETTINGS, "run.name=missing")
