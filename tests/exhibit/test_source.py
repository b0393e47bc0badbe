"""The models and data sets in subtitles, and the titles of projections."""

import json
from pathlib import Path

import pandas as pd
import pytest

from deltaw.exhibit.source import source_of, with_titles
from deltaw.run.adapter import load_adapter
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run


def test_a_run_has_recorded_its_model_and_data(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r4-s0", "r8-s0"))
    arms = [run.adapter(name) for name in ("r4-s0", "r8-s0")]
    assert source_of(arms) == {"model": ["tiny"], "data": []}
    record = json.loads((run.path / "run.json").read_text()) | {"data": {"name": "calls"}}
    (run.path / "run.json").write_text(json.dumps(record))
    assert source_of(arms) == {"model": ["tiny"], "data": ["calls"]}


@pytest.mark.parametrize(
    ("base", "model"),
    [
        ("meta-llama/Llama-3.2-1B", "Llama-3.2-1B"),
        ("/models/llama/", "llama"),
        (r"C:\models\llama", "llama"),
        ("/home/me/hub/models--meta-llama--Llama-3.2-1B/snapshots/4e20de36", "Llama-3.2-1B"),
        ("models--gpt2/snapshots/607a30d7", "gpt2"),
    ],
)
def test_the_model_of_a_folder_is_the_base_that_its_config_names(tmp_path: Path, base: str, model: str) -> None:
    folder = write_adapter(tmp_path / "r4", 4)
    config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert source_of([load_adapter(folder)]) == {"model": [model], "data": []}


def test_the_projections_of_an_encoder_decoder_have_short_titles() -> None:
    t5 = ["encoder.q", "decoder.layer.0.SelfAttention.q", "decoder.layer.1.EncDecAttention.q", "encoder.wi_0"]
    assert titles(t5) == ["encoder q", "decoder q", "decoder cross q", "encoder wi_0"]
    bart = ["encoder.q", "decoder.self_attn.q_proj", "decoder.encoder_attn.q_proj"]
    assert titles(bart) == ["encoder q", "decoder q", "decoder cross q"]
    assert titles(["q", "attn1.to_q", "down_proj"]) == ["q", "attn1.to_q", "down_proj"]


def test_titles_that_would_not_tell_projections_apart_are_not_used() -> None:
    paths = ["decoder.one.q", "decoder.two.q"]
    assert titles(paths) == paths


def titles(projections: list[str]) -> list[str]:
    return with_titles(pd.DataFrame({"projection": projections})).projection.tolist()
