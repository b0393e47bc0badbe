"""The micro-batches of a run on one device."""

import pytest
from hydra import compose, initialize_config_dir

from deltaw.commands.engine import choose_engine
from deltaw.config.schema import register
from deltaw.training.launching import Launch
from tests.support.tiny import ROOT

register()
ALONE = Launch("lightning", 1, 1, 1)


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ("data.batch=16", 4),
        ("data.batch=10", 2),  # 4 would not come out even
        ("data.batch=7", 1),
        ("data.batch=3", 1),
        ("data.micro_batch=8", 8),
        ("data.packing=true", None),  # packed rows pad nothing
    ],
)
def test_a_cpu_computes_a_quarter_of_the_batch_at_a_time(given: str, rows: int | None) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [given, "trainer.accelerator=cpu"])
    assert choose_engine(cfg, [], ALONE).rows == rows


def test_a_gpu_computes_the_whole_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train")
    assert choose_engine(cfg, [], ALONE).rows is None
