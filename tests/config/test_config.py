"""The shipped configs compose, and their runs have names and micro-batches."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from deltaw.config.schema import AnalyzeConfig, TrainConfig, register
from deltaw.errors import UserError
from deltaw.lora.arms import arms_from
from deltaw.run.name import default_name
from deltaw.training.batches import micro_batch
from tests.support.tiny import ROOT

register()
GROUPS = [
    f"{folder.name}={file.stem}"
    for folder in sorted((ROOT / "conf").iterdir())
    if folder.is_dir()
    for file in sorted(folder.glob("*.yaml"))
]
MISSING = {"model=hub": ["model.path=gpt2"], "data=jsonl": ["data.path=x.jsonl"], "data=hub": ["data.path=x"]}


@pytest.mark.parametrize("choice", ["model=bundled", *GROUPS])
def test_every_choice_composes_with_no_key_missing(choice: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [choice, *MISSING.get(choice, []), "run.name=x"])
    assert not OmegaConf.missing_keys(cfg)
    assert OmegaConf.get_type(cfg) is TrainConfig
    assert cfg.run.dir == "runs/x"
    instantiate(cfg.data.source, _partial_=True)  # imports its class


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_several_devices_share_the_batch_of_an_experiment_evenly(file: Path) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        data = compose("train", [f"experiment={file.stem}"]).data
    for devices in (1, 2, 4):
        rows = micro_batch(data.batch, data.micro_batch, devices)
        assert data.batch % (rows * devices) == 0


def test_more_devices_than_micro_batches_share_the_batch_in_smaller_micro_batches() -> None:
    assert [micro_batch(16, 4, devices) for devices in (1, 4, 8, 16)] == [4, 4, 2, 1]
    with pytest.raises(UserError, match=r"data.batch=16 is not a multiple of 3 processes × data.micro_batch=4"):
        micro_batch(16, 4, 3)


def test_the_analysis_composes_with_no_key_missing() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("analyze")
    assert not OmegaConf.missing_keys(cfg)
    assert OmegaConf.get_type(cfg) is AnalyzeConfig


def test_long_parts_of_a_name_end_in_a_hash_that_tells_them_apart() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        configs = [compose("train", [f"run.suffix=-{'x' * length}"]) for length in (100, 299, 300)]
    names = [default_name(cfg, ["r8-s0"]) for cfg in configs]
    assert names[0] == "bundled-calls-r8-s0-" + "x" * 100
    assert [len(name) for name in names[1:]] == [200, 200] and names[1] != names[2]


def test_a_run_of_many_arms_has_a_name_that_a_file_system_takes() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train")
    names = {
        default_name(cfg, [arm.name for arm in arms_from([8, 64], range(count), None, [], 16.0, "alpha/r", 1e-3)])
        for count in (1, 40, 41)
    }
    assert "bundled-calls-r8-s0_r64-s0" in names
    assert len(names) == 3 and all(len(name) < 255 for name in names)
