"""How the examples of a step lie in rows and passes where nobody says."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from deltaw.model.loading import Base, load_base, load_tokenizer
from deltaw.training.batches import rows_alone
from deltaw.training.build import objective_of
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import ROOT, run


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(str(folder / "base"), load_tokenizer(str(folder / "base")))


@pytest.mark.parametrize(
    ("given", "gpus", "packs"),
    [
        ([], 0, True),
        ([], 1, False),  # nobody has measured it there
        (["trainer.accelerator=cpu"], 1, True),
        (["data.micro_batch=1"], 0, False),  # leaves nothing to pack
        (["data.micro_batch=1", "data.packing=true"], 0, True),
        (["data.packing=true"], 1, True),
        (["data.packing=false"], 0, False),
        (["arms.dropout=0.1"], 0, False),  # an arm's masks would depend on the other arms
        (["arms.dropout=0.1", "data.packing=true"], 0, True),
        (["task=classification"], 0, False),
        (["task=seq2seq"], 0, False),
    ],
)
def test_rows_are_packed_on_a_cpu(
    base: Base, given: list[str], gpus: int, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", given)
    assert objective_of(cfg, base, []).packs is packs


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
