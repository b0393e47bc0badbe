"""The paper's experiments on a small model of the same architecture and a data set with the same columns."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from transformers import AutoTokenizer

from deltaw.commands.train import train
from deltaw.config.schema import TrainConfig
from deltaw.run.directory import RunDirectory
from deltaw.run.peft_files import CONFIG
from deltaw.training.build import corpus_of
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import ROOT, WORDS

# By experiment: architecture, a row of the data set, and the prompt and completion made from it.
RECIPES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "e2e": (
        "gpt2",
        {"meaning_representation": "name[The Mill]", "human_reference": "The Mill it is."},
        "name[The Mill]\n",
        "The Mill it is.<end>",
    ),
    "mnli": (
        "roberta",
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": 1, "idx": 0},
        "It rains.It is dry.",
        "1",
    ),
    "wikisql": (
        "gpt2",
        {
            "phase": 1,
            "question": "Who won?",
            "table": {"header": ["Year", "Winner"], "rows": [["1", "A"]]},
            "sql": {"human_readable": "SELECT Winner FROM table", "sel": 1},
        },
        "Who won?\nColumns: Year, Winner\nSQL: ",
        "SELECT Winner FROM table<end>",
    ),
    "samsum": (
        "gpt2",
        {"id": "1", "dialogue": "Ann: Tea?\nBob: Yes.", "summary": "They have tea."},
        "Ann: Tea?\nBob: Yes.\nSummary: ",
        "They have tea.<end>",
    ),
}
RECIPES["large"] = ("llama", *RECIPES["samsum"][1:])


def cut_short(name: str, tmp_path: Path) -> list[str]:
    """Settings that run a recipe for two steps, with a local model and local data of the same kinds."""
    architecture, row, _, _ = RECIPES[name]
    ARCHITECTURES[architecture].save(tmp_path / "base")
    (tmp_path / "data").mkdir()
    varied = [row | ({"label": n % 3} if "label" in row else {"extra": WORDS[n]}) for n in range(len(WORDS))]
    (tmp_path / "data/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in varied))
    return [
        f"experiment={name}",
        f"model.path={tmp_path / 'base'}",
        f"data.path={tmp_path / 'data'}",
        "data.config=null",  # a folder has none
        f"run.dir={tmp_path / 'run'}",
        "arms.ranks=[1,4]",
        "arms.seeds=[0]",
        "data.validation=4",
        "data.batch=4",
        "data.max_length=120",
        "trainer.max_steps=2",
        "snapshots.every=2",
        "metrics.every=1",
        "metrics.validate_every=2",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
    ]


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, TrainConfig]:
    """Name of a recipe, and its config, cut short."""
    settings = cut_short(request.param, tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg: Any = compose("train", settings)
    return request.param, cfg


def test_a_recipe_reads_the_columns_of_its_data_set_and_trains(recipe: tuple[str, TrainConfig]) -> None:
    name, cfg = recipe
    _, _, prompt, completion = RECIPES[name]
    tokenizer = AutoTokenizer.from_pretrained(cfg.model.path)
    corpus = corpus_of(cfg.data, cfg.task, tokenizer)  # type: ignore[arg-type]
    assert tokenizer.decode(corpus[1].prompt) == prompt
    if cfg.task == "classification":
        assert (corpus[1].completion, corpus.labels) == ([int(completion)], ["0", "1", "2"])
    else:
        assert tokenizer.decode(corpus[1].completion) == completion
    train(cfg)  # type: ignore[arg-type]
    run = RunDirectory(Path(cfg.run.dir))
    assert set(run.arms) == {"r1-s0", "r4-s0", "r1-s0-shadow1", "r4-s0-shadow1"}
    snapshot = run.path / "snapshots/r4-s0/step-00000002"
    assert json.loads((snapshot / CONFIG).read_text())["lora_dropout"] == (0.1 if name == "e2e" else 0)


@pytest.mark.ddp
def test_large_chooses_its_engine_and_trains_in_two_processes(tmp_path: Path) -> None:
    settings = [*cut_short("large", tmp_path), "trainer.devices=2"]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "engine=ddp: " in done.stdout
    for arm in ("r1-s0", "r4-s0"):
        tensors = load_file(tmp_path / "run/snapshots" / arm / "step-00000002/adapter_model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}  # on a base in bfloat16
