"""How the examples of a step lie in rows and passes where nobody says."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from pytorch_lightning import Trainer

from deltaw.model.loading import Base, load_base, load_tokenizer
from deltaw.training.batches import rows_alone
from deltaw.training.build import objective_of, on_cpu
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import ROOT, run


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(str(folder / "base"), load_tokenizer(str(folder / "base")))


@pytest.mark.parametrize(
    ("given", "gpu", "packs"),
    [
        ([], None, True),
        ([], "cuda", False),  # nobody has measured it there
        ([], "mps", False),
        (["trainer.accelerator=cpu"], "cuda", True),
        (["trainer.accelerator=cpu"], "mps", True),
        (["trainer.accelerator=gpu"], "mps", False),
        (["trainer.accelerator=mps"], "mps", False),
        (["data.micro_batch=1"], None, False),  # leaves nothing to pack
        (["data.micro_batch=1", "data.packing=true"], None, True),
        (["data.packing=true"], "cuda", True),
        (["data.packing=false"], None, False),
        (["arms.dropout=0.1"], None, False),  # an arm's masks would depend on the other arms
        (["arms.dropout=0.1", "data.packing=true"], None, True),
        (["task=classification"], None, False),
        (["task=seq2seq"], None, False),
    ],
)
def test_rows_are_packed_on_a_cpu(
    base: Base, given: list[str], gpu: str | None, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(gpu, monkeypatch)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", given)
    assert objective_of(cfg, base, []).packs is packs


@pytest.mark.parametrize("gpu", [None, "cuda", "mps"])
@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_lightning_trains_on_the_same_kind_of_device(
    gpu: str | None, accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(gpu, monkeypatch)
    trainer = Trainer(accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"trainer.accelerator={accelerator}"])
    assert on_cpu(cfg) is (trainer.strategy.root_device.type == "cpu")


def pretend(gpu: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have such a GPU and no other."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: int(gpu == "cuda"))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: gpu == "mps")
    for library in ("lightning_fabric", "pytorch_lightning"):  # Lightning asks once
        asked = f"{library}.accelerators.mps.MPSAccelerator.is_available"
        monkeypatch.setattr(asked, staticmethod(lambda: gpu == "mps"))


def test_a_base_that_looks_across_examples_has_one_in_each_row(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ARCHITECTURES["bloom"].save(folder / "bloom")
    few = [f"model.path={folder / 'bloom'}", "trainer.max_steps=1", "data.batch=8", "data.micro_batch=null"]
    paddings: list[str] = []
    for name, settings in {"default": [], "rows": ["data.packing=false"], "quarter": ["data.micro_batch=2"]}.items():
        run(folder, *few, *settings, f"run.name={name}")
        paddings += re.findall(r"([\d.]+)% padding", capsys.readouterr().out)
    assert paddings[0] == paddings[1] == paddings[2] != "0.0"


@pytest.mark.parametrize(("batch", "rows"), [(16, 4), (10, 2), (7, 1), (3, 1)])
def test_rows_of_one_example_are_computed_a_quarter_of_the_batch_at_a_time(batch: int, rows: int) -> None:
    assert rows_alone(batch) == rows
