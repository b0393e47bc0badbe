"""Mistakes of a user: one line names the value, the exit code is not 0, and nothing is written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file
from torch import nn

from deltaw.commands.train import train
from deltaw.data.jsonl import JsonLines
from deltaw.entry.train import check_base
from deltaw.errors import UserError
from deltaw.model.projections import projections
from tests.support.tiny import ROOT, make_base, make_pairs, overrides, run

HUB = ["model=hub", "model.path=gpt2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    make_base(folder / "base")
    make_pairs(folder / "pairs.jsonl")
    for name in ("cut", "holed"):
        shutil.copytree(folder / "base", folder / name)
    weights = load_file(folder / "base" / "model.safetensors")
    del weights["model.layers.1.self_attn.q_proj.weight"]
    save_file(weights, folder / "holed" / "model.safetensors", metadata={"format": "pt"})
    (folder / "cut" / "model.safetensors").write_bytes((folder / "base" / "model.safetensors").read_bytes()[:-9])
    (folder / "half.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n")
    (folder / "notes.jsonl").write_text("no JSON\n")
    (folder / "empty.jsonl").touch()
    (folder / "chat.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}) + "\n")
    return folder


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("arms.ranks=[0,4]", "arms.ranks has 0"),
        ("arms.ranks=[17]", "rank 17 is above the width 16 of model.layers.0.self_attn.v_proj"),
        ("arms.projections=[]", "arms.projections=[] adapts nothing"),
        ("arms.projections=[q,w]", "choose from ['down_proj', 'gate_proj', 'k', 'o', 'q', 'up_proj', 'v']"),
        ("arms.ranks=[4,4]", "not all different"),
        ("arms.scaling=beta", "arms.scaling='beta': choose from"),
        ("arms.controls=[noise]", "arms.controls has 'noise'"),
        ("optim.lr=-1", "optim.lr=-1.0"),
        ("optim.warmup=2", "optim.warmup=2"),
        ("trainer.max_steps=0", "trainer.max_steps=0"),
        ("trainer.precision=bf16-true", "trainer.precision=bf16-true"),
        ("arms.alpha=0", "arms.alpha=0"),
        ("optim.lr=inf", "optim.lr=inf: a learning rate"),
        ("arms.dropout=1", "arms.dropout=1.0: give a share, from 0 to less than 1"),
        ("optim.label_smoothing=-0.1", "optim.label_smoothing=-0.1: give a share"),
        ("arms.list=[{{rank:2}}]", "arms.list names every arm, and arms.ranks would add more"),
        ("arms.ranks=null arms.list=[{{rank:2,beta:1}}]", "arms.list[0] has the key 'beta'"),
        (
            "arms.ranks=null arms.list=[{{rank:2,name:x,rank_pattern:{{layers.7.self_attn.q_proj:4}}}}]",
            "rank_pattern of x has 'layers.7.self_attn.q_proj', which fits none of the 6 adapted modules",
        ),
        ("arms.ranks=null arms.list=[{{rank:2,rank_pattern:{{v_proj:17}}}}]", "rank 17 is above the width 16"),
        ("optim.weight_decay=nan", "optim.weight_decay=nan"),
        ("data.micro_batch=0", "data.micro_batch=0"),
        ("run.name=a/b", "run.name=a/b"),
        ("run.dir=/dev/null/x", "run.dir=/dev/null/x cannot be written"),
        ("trainer.devices=many", "trainer.devices=many is refused"),
        ("model.path={folder}/cut", "cut could not be loaded"),
        ("model.path={folder}/holed", "lacks 1 weights, as model.layers.1.self_attn.q_proj.weight"),
        ("trainer.accelerator=abacus", "'accelerator': 'abacus'"),
        ("data.batch=5 data.micro_batch=2", "data.batch=5 is not a multiple"),
        ("data.validation=50 data.judged=10", "data.validation=50 and data.judged=10 hold out all of 60 examples"),
        ("data.judged=-1", "data.judged=-1: give 0 or more"),
        ("data.path=null", "data=jsonl needs a text to learn: give data.path=FILE"),
        (
            "data.path={folder}/half.jsonl",
            "half.jsonl:1 has the fields ['prompt'], and task=causal reads 'prompt' and 'completion' or 'messages' or "
            "'text': set data.completion, data.messages, data.prompt, data.text to the names of yours",
        ),
        ("data.path={folder}/empty.jsonl", "empty.jsonl is empty"),
        ("data.path={folder}/chat.jsonl", "base has no chat_template"),
        ("data.max_completion=0", "data.max_completion=0"),
        ("data.path={folder}/notes.jsonl", "notes.jsonl:1 is not JSON"),
        ("data.path={folder}/none.jsonl", "none.jsonl could not be read"),
        ("model.path={folder}/none", "none could not be loaded"),
        ("model.dtype=float16", "model.dtype=float16"),
        ("model.projections.q=query model.projections.v=v_proj", "has 0 modules for 'q'"),
    ],
)
def test_an_impossible_value_is_named_and_nothing_is_written(folder: Path, override: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        run(folder, *override.format(folder=folder).split(" "))
    assert words in " ".join(str(error.value).split())
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("arms.rnks=[8]", "arms.rnks"),
        ("trainer.max_steps=many", "many"),
        ("data=nothing", "nothing"),
        ("arms.ranks=[0]", "arms.ranks has 0"),
    ],
)
def test_the_command_ends_with_one_line(folder: Path, override: str, words: str) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *overrides(folder, override)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and words in line
    assert not (folder / "runs").exists()


def test_a_directory_of_another_config_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    small = ["trainer.max_steps=2", "run.name=taken"]
    done = run(tmp_path, *small)
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    run(tmp_path, *small, "data.micro_batch=2")  # the same run in other micro-batches, which is finished
    with pytest.raises(UserError, match=r"optim.lr is 0.002 there and 0.001 here.*give another run.name"):
        run(tmp_path, *small, "optim.lr=0.001")
    with pytest.raises(UserError, match=r"arms.shadows is 1 there and 2 here"):
        run(tmp_path, *small, "arms.shadows=2")
    make_pairs(tmp_path / "pairs.jsonl", 70)
    (done / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"was begun with data .* and now it is"):
        run(tmp_path, *small)
    assert all(path.read_bytes() == content for path, content in before.items() if path.suffix != ".ckpt")


def test_a_data_path_without_its_source_is_refused() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["data.path=mine.jsonl"])
    with pytest.raises(UserError, match=r"data=calls does not read data.path=mine.jsonl: add data=jsonl or data=hub"):
        train(cfg)


def test_another_base_with_the_settings_of_the_bundled_one_is_refused() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        bundled, other, hub = (compose("train", line) for line in ([], ["model.path=gpt2"], HUB))
    check_base(bundled, "bundled")
    check_base(hub, "hub")
    with pytest.raises(UserError, match=r"model\.path=gpt2 needs model=hub"):
        check_base(other, "bundled")


def test_a_line_of_json_may_hold_the_line_separators_of_unicode(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text('{"prompt": "a\u2028b", "completion": "c"}\n \n', encoding="utf-8")
    rows = JsonLines(str(tmp_path / "lines.jsonl")).rows([])
    assert list(rows) == [(f"{tmp_path}/lines.jsonl:1", {"prompt": "a\u2028b", "completion": "c"})]


def test_a_layer_with_two_or_no_v_is_refused() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"q_proj": nn.Linear(2, 2), "c": nn.Linear(2, 2)})])})
    with pytest.raises(UserError, match=r"layer 1 of ModuleDict has 0 modules for 'v'.*holds \['c', 'q_proj'\]"):
        projections(model)
    assert projections(model, names={"v": "c"}) == {"layers.0.q_proj": "q", "layers.0.c": "v"}
    with pytest.raises(UserError, match="no numbered layers"):
        projections(nn.Linear(2, 2))
