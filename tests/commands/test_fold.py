"""A snapshot of a model whose fused layers were split, folded, is the same ΔW to stock PEFT on the model as it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import PreTrainedModel

from deltaw import load_adapter
from deltaw.commands.fold import fold
from deltaw.errors import UserError
from deltaw.lora.arm import SCALINGS, Arm
from deltaw.lora.attach import attach
from deltaw.lora.snapshot import adapter_config, adapter_tensors
from deltaw.model.projections import projections
from deltaw.model.split import split, split_metadata
from deltaw.run.peft_files import CONFIG, WEIGHTS
from tests.support.architectures import ARCHITECTURES, FUSED, Architecture
from tests.support.folders import write_adapter
from tests.support.rows import logits


def export(base: PreTrainedModel, folder: Path, wanted: list[str], scaling: str = "alpha/r", rank: int = 3) -> Path:
    """Write a snapshot of one arm on `base` with a random B, as if trained."""
    split(base, wanted)
    arm = Arm(f"r{rank}-s0", rank, seed=0, alpha=16.0 if scaling != "constant" else 2.0, scaling=scaling, lr=1e-3)
    attach(base, projections(base, wanted), [arm])
    torch.manual_seed(1)
    tensors = {}
    for name, tensor in adapter_tensors(base, 0).items():
        tensors[name] = tensor.normal_(std=0.1) if "lora_B" in name else tensor
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"} | split_metadata(base))
    (folder / CONFIG).write_text(json.dumps(adapter_config(arm, base, "", "CAUSAL_LM") | {"task_type": None}))
    return folder


def in_peft(base: PreTrainedModel, folder: Path) -> torch.Tensor:
    model: Any = PeftModel.from_pretrained(base, str(folder), autocast_adapter_dtype=False).eval()
    assert not model.training
    return logits(model.get_base_model(), 7)


def assert_peft_has_our_logits(architecture: Architecture, folder: Path, wanted: list[str], **arm: Any) -> None:
    ours = architecture.build(dtype=torch.float64)
    plain = logits(ours, 7)
    folded = fold(export(ours, folder / "split", wanted, **arm), folder / "folded")
    expected = logits(ours, 7)
    assert (expected - plain).abs().max() > 1e-2  # the arm changes the logits
    theirs = in_peft(architecture.build(dtype=torch.float64), folded)
    assert_close(theirs, expected, rtol=0, atol=1e-5 * max(1.0, expected.abs().max().item()))  # factors are in float32


@pytest.mark.parametrize("wanted", [["q", "v"], ["all-linear"]], ids="-".join)
@pytest.mark.parametrize("architecture", FUSED.values(), ids=FUSED)
def test_peft_has_our_logits_on_the_model_as_it_is(
    architecture: Architecture, wanted: list[str], tmp_path: Path
) -> None:
    assert_peft_has_our_logits(architecture, tmp_path, wanted)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("wanted", [["k"], ["q", "k", "v"], ["v", "o"]], ids="-".join)
def test_peft_has_our_logits_whatever_the_scale_and_the_projections(
    scaling: str, wanted: list[str], tmp_path: Path
) -> None:
    assert_peft_has_our_logits(ARCHITECTURES["gpt2"], tmp_path, wanted, scaling=scaling)


def test_projections_of_unequal_rank_and_scale_keep_their_updates(tmp_path: Path) -> None:
    folder = export(ARCHITECTURES["falcon grouped"].build(), tmp_path / "split", ["q", "v", "o"])
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    v_of_layer_1 = "transformer.h.0.self_attention.query_key_value.v_proj"
    for factor, smaller in (("A", lambda A: A[:2]), ("B", lambda B: B[:, :2])):
        name = f"base_model.model.{v_of_layer_1}.lora_{factor}.weight"
        tensors[name] = smaller(tensors[name]).contiguous()
    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, folder / WEIGHTS, metadata=metadata)
    (folder / CONFIG).write_text(
        json.dumps(config | {"rank_pattern": {v_of_layer_1: 2}, "alpha_pattern": {"v_proj": 5}})
    )

    split_one, folded = load_adapter(folder), load_adapter(fold(folder, tmp_path / "folded"))
    assert sorted({lora.rank for lora in folded.sites.values()}) == [3, 5, 6]
    for site, lora in split_one.sites.items():
        update = lora.scale * split_one.B(site) @ split_one.A(site)
        fused, _, part = site.module.rpartition(".")
        whole_site = next(s for s in folded.sites if s.module in (fused, site.module))
        whole = folded.sites[whole_site].scale * folded.B(whole_site) @ folded.A(whole_site)
        rows = split_one.split[fused].rows[part[0]] if fused in split_one.split else (range(len(whole)),)
        assert_close(torch.cat([whole[part.start : part.stop] for part in rows]), update)


def test_other_tensors_in_the_file_stay_there(tmp_path: Path) -> None:
    folder = export(ARCHITECTURES["gpt2"].build(), tmp_path / "split", ["q", "v"])
    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    head = {"base_model.model.score.weight": torch.ones(2, 3)}
    save_file(load_file(folder / WEIGHTS) | head, folder / WEIGHTS, metadata=metadata)
    folded = load_file(fold(folder, tmp_path / "folded") / WEIGHTS)
    assert torch.equal(folded["base_model.model.score.weight"], torch.ones(2, 3))
    assert {name.split(".")[-3] for name in folded} == {"c_attn", "model"}


def test_an_adapter_without_split_layers_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "plain", rank=2)
    with pytest.raises(UserError, match=r"plain has no split layers .*: PEFT loads it as it is"):
        fold(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    folder = export(ARCHITECTURES["gpt2"].build(), tmp_path / "split", ["q", "v"])
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out exists: give the name of a new folder"):
        fold(folder, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_failure_to_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(ARCHITECTURES["gpt2"].build(), tmp_path / "split", ["q", "v"])

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("deltaw.commands.fold.write_adapter", full_disk)
    with pytest.raises(UserError, match=r"out cannot be written \(no space left\)"):
        fold(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["split"]


def test_the_command_folds_and_refuses_in_one_line(tmp_path: Path) -> None:
    folder = export(ARCHITECTURES["gpt2"].build(), tmp_path / "split", ["q", "v"])
    command = [sys.executable, "-m", "deltaw.commands.fold", str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == f"{tmp_path / 'out'}\n" and (tmp_path / "out" / WEIGHTS).is_file()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (
        again.returncode == 1 and again.stderr == f"error: {tmp_path / 'out'} exists: give the name of a new folder\n"
    )
