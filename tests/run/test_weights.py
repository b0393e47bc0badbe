import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from deltaw import load_adapter
from deltaw.analysis.pairs import AdapterPair
from deltaw.errors import UserError
from deltaw.model.fused import Fused
from deltaw.model.names import is_conv1d
from deltaw.model.split import split
from deltaw.run.directory import RunDirectory
from deltaw.run.weights import Weight, find_weight, read_weight
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import make_base, make_pairs, run

MODULE = "model.layers.1.attn.q_proj"
W = torch.arange(12.0).view(4, 3)


def write(folder: Path, **files: dict[str, torch.Tensor]) -> Path:
    """One safetensors file per keyword, beside a weight of another layer."""
    other = {"model.layers.11.attn.q_proj.weight": torch.zeros(4, 3)}
    for name, tensors in files.items():
        save_file(other | tensors, folder / f"{name}.safetensors")
        other = {}
    return folder


def test_a_run_records_where_to_read_what_transformers_loads(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    record = json.loads((run(tmp_path, "trainer.max_steps=1") / "run.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert list(record["weights"]) == list(record["modules"]) and len(record["weights"]) == 6
    for module, weight in record["weights"].items():
        W = model.get_parameter(f"{module}.weight").detach()
        found = find_weight(tmp_path / "base", module, (W.shape[0], W.shape[1]))
        assert json.loads(json.dumps(asdict(found))) == weight
        assert torch.equal(read_weight(found), W)


def test_a_weight_is_found_in_another_wrapper(tmp_path: Path) -> None:
    module, images = "model.language_model.layers.0.self_attn.q_proj", "vision_tower.encoder.layers.0.self_attn.q_proj"
    text = "language_model.model.layers.0.self_attn.q_proj"
    save_file({f"{text}.weight": W, f"{images}.weight": -W}, tmp_path / "model.safetensors")
    assert find_weight(tmp_path, module, (4, 3)).tensor == f"{text}.weight"


def test_a_base_that_holds_a_weight_twice_is_trained_without_a_record_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_base(tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    shutil.copy(tmp_path / "base" / "model.safetensors", tmp_path / "base" / "copy.safetensors")
    done = run(tmp_path, "trainer.max_steps=1")
    assert json.loads((done / "run.json").read_text())["weights"] == {}
    assert "the run goes on without a record of W" in capsys.readouterr().out


@pytest.mark.parametrize("name", [MODULE, "layers.1.attn.q_proj", f"transformer.{MODULE}"])
def test_first_parts_of_the_name_may_be_missing_on_either_side(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, model={f"{name}.weight": W})
    assert find_weight(folder, MODULE, (4, 3)) == Weight(
        str(folder / "model.safetensors"), f"{name}.weight", ((0, 4),), False
    )


def test_a_tensor_of_the_same_name_is_preferred_to_one_that_ends_alike(tmp_path: Path) -> None:
    folder = write(tmp_path, model={f"{MODULE}.weight": W, f"teacher.{MODULE}.weight": -W})
    assert torch.equal(read_weight(find_weight(folder, MODULE, (4, 3))), W)


def test_a_weight_is_found_in_whichever_file_holds_it(tmp_path: Path) -> None:
    folder = write(tmp_path, a={}, b={f"{MODULE}.weight": W})
    weight = find_weight(folder, MODULE, (4, 3))
    assert (Path(weight.file).name, Path(weight.file).is_absolute()) == ("b.safetensors", True)
    assert torch.equal(read_weight(weight), W)
    first = find_weight(folder, "model.layers.11.attn.q_proj", (4, 3))
    assert Path(first.file).name == "a.safetensors"


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_only_the_rows_of_a_part_of_a_split_layer_are_read(tmp_path: Path, blocks: int, transposed: bool) -> None:
    layout = Fused(blocks, {"q": 4 // blocks, "k": 2 // blocks, "v": 2 // blocks}, transposed)
    fused = torch.arange(24.0).view(8, 3)
    parts = fused.view(blocks, 8 // blocks, 3).split(list(layout.widths.values()), dim=1)
    folder = write(tmp_path, model={"h.0.c_attn.weight": fused.T.contiguous() if transposed else fused})
    for letter, part in zip("qkv", parts, strict=True):
        rows = part.flatten(0, 1)
        shape = (rows.shape[0], rows.shape[1])
        found = find_weight(
            folder, f"transformer.h.0.c_attn.{letter}_proj", shape, split={"transformer.h.0.c_attn": layout}
        )
        assert torch.equal(read_weight(found), rows)


def test_a_weight_is_read_in_the_dtype_and_layout_of_its_file(tmp_path: Path) -> None:
    folder = write(tmp_path, model={f"{MODULE}.weight": W.bfloat16()})
    assert read_weight(find_weight(folder, MODULE, (4, 3))).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has 0 weights for model.layers.1.attn.q_proj, among []"),
        ({"a": {}}, "has 0 weights for model.layers.1.attn.q_proj, among ['model.layers.11.attn.q_proj.weight']"),
        (
            {"a": {f"x.{MODULE}.weight": W}, "b": {f"y.{MODULE}.weight": W}},
            f"has 2 weights for {MODULE}, among ['x.{MODULE}.weight', 'y.{MODULE}.weight']",
        ),
        ({"a": {f"{MODULE}.weight": W}, "b": {f"{MODULE}.weight": W}}, "has 2 weights"),
        ({"a": {f"{MODULE}.weight": W.T.contiguous()}}, "is (3, 4), and model.layers.1.attn.q_proj is (4, 3)"),
    ],
    ids=["no file", "none", "several", "twice", "another shape"],
)
def test_a_missing_or_ambiguous_or_misshapen_weight_is_named(
    tmp_path: Path, files: dict[str, dict[str, torch.Tensor]], words: str
) -> None:
    with pytest.raises(UserError) as error:
        find_weight(write(tmp_path, **files), MODULE, (4, 3))
    assert words in str(error.value) and str(tmp_path) in str(error.value)


def test_a_file_that_is_gone_or_changed_is_named_with_the_way_on(tmp_path: Path) -> None:
    folder = write(tmp_path, model={f"{MODULE}.weight": W})
    weight = find_weight(folder, MODULE, (4, 3))
    write(tmp_path, model={})
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read .*q_proj.*give deltaw analyze base="):
        read_weight(weight)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is gone.*give deltaw analyze base="):
        read_weight(weight)


def test_reading_a_weight_needs_no_transformers() -> None:
    code = "import sys, deltaw.run.weights; print({'transformers', 'peft', 'pytorch_lightning'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "falcon grouped"])
def test_a_run_on_split_layers_records_where_the_rows_of_each_part_are(tmp_path: Path, name: str) -> None:
    ARCHITECTURES[name].save(tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    done = run(tmp_path, "trainer.max_steps=1", "arms.projections=all-linear")
    record = json.loads((done / "run.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    split(model, ["all-linear"])
    for module in record["modules"]:
        layer: Any = model.get_submodule(module)
        W = layer.weight.T if is_conv1d(layer) else layer.weight
        [site] = [site for site in RunDirectory(done).adapter("r2-s0").sites if site.module == module]
        of_run = RunDirectory(done).adapter("r2-s0")
        assert torch.equal(AdapterPair(of_run, of_run).weight(site), W)
        of_folder = load_adapter(of_run.folder)
        assert torch.equal(AdapterPair(of_folder, of_folder, tmp_path / "base").weight(site), W)
