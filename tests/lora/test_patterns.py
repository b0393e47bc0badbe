"""Arms whose rank and alpha differ from module to module: PEFT and the analysis read them as they were trained."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from deltaw import compare, load_adapter
from deltaw.errors import UserError
from deltaw.lora.arm import SCALINGS, Arm
from deltaw.lora.arms import arms_from
from deltaw.lora.attach import attach
from deltaw.lora.layers import parameters_of
from deltaw.lora.snapshot import adapter_config, adapter_tensors
from deltaw.model.projections import projections
from deltaw.run.peft_files import CONFIG, WEIGHTS
from tests.support.architectures import ARCHITECTURES
from tests.support.rows import logits

# The first key that fits holds, and JSON written in the order of its keys would have "._proj" before the others.
RANKS = {r"layers\.1\.self_attn\.v_proj": 2, "layers.0.self_attn.q_proj": 6, "._proj": 5}
ALPHAS = {"self_attn.v_proj": 3, r"layers\.0\..*": 24}
EXPECTED = {(1, "q"): (6, 24), (1, "v"): (5, 3), (2, "q"): (5, 16), (2, "v"): (2, 3)}  # rank and alpha


def patterned(scaling: str) -> list[Arm]:
    entries = [{"rank": 4, "rank_pattern": RANKS, "alpha_pattern": ALPHAS}, {"rank": 4}]
    return arms_from(None, None, None, [], 16.0, scaling, 1e-3, listed=entries)


def export(scaling: str, dtype: torch.dtype, folder: Path) -> torch.Tensor:
    """Write snapshots of two arms on a Llama with random Bs, as if trained; returns the logits of both."""
    base = ARCHITECTURES["llama"].build(dtype=dtype)
    arms = patterned(scaling)
    attach(base, projections(base), arms)
    nn.Module.to(base, dtype)
    torch.manual_seed(1)
    for k, arm in enumerate(arms):
        for B in parameters_of(base, k)[1::2]:
            nn.init.normal_(B, std=0.05)
        path = folder / arm.name
        path.mkdir()
        save_file(adapter_tensors(base, k), path / WEIGHTS, metadata={"format": "pt"})
        (path / CONFIG).write_text(json.dumps(adapter_config(arm, base, "", "CAUSAL_LM"), sort_keys=True))
    return logits(base, 7, repeats=2)


@pytest.mark.parametrize(("dtype", "nearly"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_peft_computes_our_logits(scaling: str, dtype: torch.dtype, nearly: float, tmp_path: Path) -> None:
    ours = export(scaling, dtype, tmp_path).chunk(2)
    plain = logits(ARCHITECTURES["llama"].build(dtype=dtype), 7)
    for arm, expected in zip(patterned(scaling), ours, strict=True):
        base = ARCHITECTURES["llama"].build(dtype=dtype)
        model = PeftModel.from_pretrained(base, tmp_path / arm.name, autocast_adapter_dtype=False).to(dtype)
        theirs = logits(model.get_base_model(), 7)  # type: ignore[arg-type]
        assert (expected - plain).abs().max() > 1e-2
        assert_close(theirs, expected, rtol=nearly, atol=nearly)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_analysis_reads_the_rank_and_the_scale_of_every_site(scaling: str, tmp_path: Path) -> None:
    export(scaling, torch.float32, tmp_path)
    varied, plain = patterned(scaling)
    sites = compare(load_adapter(tmp_path / varied.name), load_adapter(tmp_path / plain.name)).sites
    sites = sites[(sites.basis == "input") & (sites.arm == str(tmp_path / varied.name))]
    found = {(row.layer, row.projection): (row.rank, row.scale) for row in sites.itertuples()}
    divisor = {"constant": lambda rank: 1, "alpha/r": lambda rank: rank, "rslora": lambda rank: rank**0.5}[scaling]
    assert found.keys() == EXPECTED.keys()
    for site, (rank, alpha) in EXPECTED.items():
        assert found[site] == (rank, pytest.approx(alpha / divisor(rank)))


@pytest.mark.parametrize(
    ("pattern", "idle"), [({"o_proj": 4}, "o_proj"), ({"._proj": 4, "q_proj": 4}, "q_proj"), ({"q_pro": 4}, "q_pro")]
)
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_fits_no_adapted_module_is_refused(key: str, pattern: dict[str, int], idle: str) -> None:
    base = ARCHITECTURES["llama"].build()
    arms = arms_from(None, None, None, [], 16.0, "alpha/r", 1e-3, listed=[{"rank": 4, "name": "x", key: pattern}])
    with pytest.raises(UserError, match=f"{key} of x has '{idle}', which fits none of the 4 adapted modules"):
        attach(base, projections(base), arms)
