"""An arm cut for shipping: PEFT computes the logits of the best approximation of ΔW, and nothing else has changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from deltaw import load_adapter
from deltaw.analysis.ship import CutAdapter
from deltaw.lora.arm import SCALINGS
from deltaw.lora.arms import arms_from
from deltaw.lora.attach import attach
from deltaw.lora.layers import adapted_layers, parameters_of
from deltaw.lora.snapshot import adapter_config, adapter_tensors
from deltaw.model.projections import projections
from deltaw.run.peft_files import CONFIG, SPLIT, WEIGHTS
from tests.support.architectures import ARCHITECTURES
from tests.support.folders import write_adapter
from tests.support.rows import logits

# Ranks 6, 4, 4 and 2: a cut to 3 leaves one site as it is.
PATTERNS = {"rank_pattern": {r"layers\.1\.self_attn\.v_proj": 2, "layers.0.self_attn.q_proj": 6}}
PATTERNS |= {"alpha_pattern": {"self_attn.v_proj": 3}}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_peft_has_our_logits_of_the_cut(scaling: str, tmp_path: Path) -> None:
    entries = [{"rank": 4, **PATTERNS}]
    (arm,) = arms_from(None, None, None, [], 16.0, scaling, 1e-3, listed=entries)
    base = ARCHITECTURES["llama"].build(dtype=torch.float64)
    attach(base, projections(base), [arm])
    nn.Module.to(base, torch.float64)
    torch.manual_seed(1)
    for B in parameters_of(base, 0)[1::2]:
        nn.init.normal_(B, std=0.05)
    whole = logits(base, 7)
    (tmp_path / "arm").mkdir()
    save_file(adapter_tensors(base, 0), tmp_path / "arm" / WEIGHTS, metadata={"format": "pt"})
    (tmp_path / "arm" / CONFIG).write_text(json.dumps(adapter_config(arm, base, "", "CAUSAL_LM")))

    cut = CutAdapter(replace(load_adapter(tmp_path / "arm"), name=arm.name), 3)
    cut.write(tmp_path)
    with torch.no_grad():
        for _, layer in adapted_layers(base):
            A, B = layer.A[0], layer.B[0]
            U, values, Vh = torch.linalg.svd(B @ A, full_matrices=False)
            values[3:] = 0
            A.copy_(Vh[: len(A)])
            B.copy_(U[:, : len(A)] * values[: len(A)])
    expected = logits(base, 7)
    assert (expected - whole).abs().max() > 1e-3
    assert cut.files == [f"ship/{arm.name}-cut3/{name}" for name in (CONFIG, WEIGHTS)]
    model = PeftModel.from_pretrained(
        ARCHITECTURES["llama"].build(dtype=torch.float64), tmp_path / cut.folder, autocast_adapter_dtype=False
    ).to(torch.float64)
    assert_close(logits(model.get_base_model(), 7), expected, rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]
    ranks = {site.module: lora.rank for site, lora in load_adapter(tmp_path / cut.folder).sites.items()}
    assert sorted(ranks.values()) == [2, 3, 3, 3]


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_scales_dtypes_heads_and_metadata_stay(rank: int, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "r8-s0", rank=8, use_rslora=True, modules_to_save=["score"])
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS).items()}
    head = {"base_model.model.score.weight": torch.ones(2, 3)}
    save_file(tensors | head, folder / WEIGHTS, metadata={"format": "pt", SPLIT: "{}"})
    adapter = replace(load_adapter(folder), name="r8-s0")
    CutAdapter(adapter, rank).write(tmp_path / "out")
    written = tmp_path / "out" / f"ship/r8-s0-cut{rank}"
    found = load_file(written / WEIGHTS)
    assert torch.equal(found.pop("base_model.model.score.weight"), torch.ones(2, 3))
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    with safe_open(written / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt", SPLIT: "{}"}
    config, before = (json.loads((place / CONFIG).read_text()) for place in (written, folder))
    changed = {"r", "lora_alpha", "rank_pattern", "alpha_pattern"}
    assert {key: value for key, value in config.items() if key not in changed} == {
        key: value for key, value in before.items() if key not in changed
    }
    for site, lora in load_adapter(written).sites.items():
        assert (lora.rank, lora.scale) == (rank, pytest.approx(adapter.sites[site].scale))
