"""What users take for an adapter folder: each is refused with its cause and the way on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deltaw import load_adapter
from deltaw.analysis.selection import find_adapter
from deltaw.errors import UserError
from deltaw.run.peft_files import CONFIG, WEIGHTS
from tests.support.folders import write_adapter, write_run

SHARD = "adapter_model-{:05}-of-00002.safetensors"


def tensors(folder: Path, name: str, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    save_file({one: torch.ones(2, 2) for one in names}, folder / name)


def touched(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    return make


def several(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            write_adapter(folder / name, rank=1, layers=1)

    return make


def with_other_weights(name: str | None) -> Callable[[Path], None]:
    """An adapter whose weights have another name, or are missing."""

    def make(folder: Path) -> None:
        write_adapter(folder, rank=1, layers=1)
        (folder / WEIGHTS).rename(folder / name) if name else (folder / WEIGHTS).unlink()

    return make


def with_content(content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_adapter(folder, rank=1, layers=1)
        (folder / WEIGHTS).write_bytes(content)

    return make


def with_tensors(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write_adapter(folder, rank=1, layers=1)
        tensors(folder, WEIGHTS, *names)

    return make


def partitioned(folder: Path) -> None:
    write_adapter(folder, rank=1, layers=1)
    save_file({name: torch.empty(0) for name in load_file(folder / WEIGHTS)}, folder / WEIGHTS)


def mlx(folder: Path) -> None:
    tensors(folder, "adapters.safetensors", "model.layers.0.q_proj.lora_a", "model.layers.0.q_proj.lora_b")
    (folder / CONFIG).write_text(json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (several("checkpoint-90", "checkpoint-200", "checkpoint-1000"), "give one, as {}/checkpoint-1000"),
        (several("train", "reference"), "the adapters reference, train: give one, as {}/train"),
        (several("models--a--b/snapshots/0123"), "give one, as {}/models--a--b/snapshots/0123"),
        (lambda folder: write_run(folder, "r1-s0"), "give one, as {}/snapshots/r1-s0/step-00000010"),
        (lambda folder: write_run(folder / "x", "r1-s0"), "holds the runs x: give one, as {}/x"),
        (mlx, "adapters.safetensors is an adapter of MLX: write lora_a and lora_b, each transposed"),
        (with_tensors("a.lora_a", "a.lora_b"), "is an adapter of MLX"),
        (with_tensors(), "DeepSpeed ZeRO-3"),
        (partitioned, "A (0,) and B (0,): empty, as an adapter is saved where DeepSpeed ZeRO-3 shards it"),
        (touched("global_step5/x", "zero_to_fp32.py"), "DeepSpeed ZeRO-3"),
        (
            lambda folder: tensors(folder, "a.safetensors", "lora_unet_x.lora_down.weight"),
            "convert_sd_adapter_to_peft.py",
        ),
        (with_tensors("lora_te_x.lora_up.weight"), "an adapter of kohya's scripts"),
        (lambda folder: tensors(folder, "pytorch_lora_weights.safetensors", "unet.q.lora_A.weight"), "as of diffusers"),
        (with_tensors("unet.q.lora.down.weight"), "older diffusers"),
        (with_tensors("a.hada_w1_a"), "LoHa"),
        (with_other_weights("adapter_model.bin"), "torch.load('{}/adapter_model.bin', weights_only=True)"),
        (with_other_weights(SHARD.format(1)), "one of several shards, and not all are there"),
        (with_other_weights("model.safetensors"), "a whole model"),
        (with_other_weights(None), f"{{}}/{WEIGHTS} is missing"),
        (with_content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), "git lfs pull"),
        (with_content(b"\n<!DOCTYPE html><html>"), "a web page"),
        (with_content(b"PK\x03\x04"), "nothing pickled is read"),
        (touched("config.json", "model.safetensors"), "a whole model, and a merged one no longer tells its ΔW"),
        (touched("config.json", "model-00001-of-00002.safetensors"), "a whole model"),
        (touched("pytorch_model.bin"), "a whole model"),
        (touched("last.ckpt"), "a pickled checkpoint, as of Lightning"),
        (touched("lora.gguf"), "llama.cpp"),
        (touched("pytorch_model_fsdp_0.distcp"), "sharded by PyTorch"),
        (touched("adapter.zip"), "unpack it"),
        (touched("notes.txt"), "holds notes.txt: give a folder that PEFT's save_pretrained wrote"),
        (touched(*(f"{n}.txt" for n in range(6))), "holds 2.txt, 3.txt, 4.txt, 5.txt and 2 more"),
        (Path.mkdir, "{} is empty: give a folder that PEFT's save_pretrained wrote"),
    ],
)
def test_a_folder_that_is_no_adapter_in_pefts_format_is_told_as_what_it_is(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "a")
    with pytest.raises(UserError) as error:
        load_adapter(tmp_path / "a")
    assert words.format(tmp_path / "a") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gguf", "llama.cpp"),
        ("a.tar.gz", "unpack it"),
        ("a.pt", "torch.load('{}', weights_only=True)"),
        ("last.ckpt", "Lightning"),
        ("notes.txt", f"a file, and no folder with {CONFIG}"),
        ("a.safetensors", "cannot be read"),
    ],
)
def test_a_file_is_told_as_what_it_is(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError) as error:
        load_adapter(tmp_path / name)
    assert words.format(tmp_path / name) in str(error.value)


def test_a_single_file_of_kohya_is_told_by_its_tensors(tmp_path: Path) -> None:
    tensors(tmp_path, "style.safetensors", "lora_unet_q.lora_down.weight", "lora_unet_q.lora_up.weight")
    with pytest.raises(UserError, match=r"style.safetensors is an adapter of kohya's scripts"):
        load_adapter(tmp_path / "style.safetensors")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_of_a_file_of_an_adapter_the_folder_is_asked_for(tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path / "a", rank=1, layers=1)
    with pytest.raises(UserError, match=rf"give its folder, {tmp_path / 'a'}$"):
        load_adapter(tmp_path / "a" / name)


@pytest.mark.parametrize("name", ["someone/some-lora", "https://huggingface.co/someone/some-lora"])
def test_a_name_of_the_hub_is_told_how_to_download(name: str) -> None:
    with pytest.raises(UserError, match="hf download someone/some-lora --local-dir some-lora, and give some-lora"):
        find_adapter(name, runs=[], step=None)


@pytest.mark.parametrize("find", [load_adapter, lambda path: find_adapter(str(path), runs=[], step=None)])
def test_the_cause_comes_through_every_way_of_opening_a_folder(tmp_path: Path, find: Callable[[Path], object]) -> None:
    several("checkpoint-100", "checkpoint-200")(tmp_path / "a")
    with pytest.raises(UserError, match=r"give one, as .*checkpoint-200$"):
        find(tmp_path / "a")
    with pytest.raises(UserError, match="none-there does not exist"):
        find(tmp_path / "none-there")


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    whole = load_adapter(write_adapter(tmp_path / "whole", rank=2))
    stored = load_file(write_adapter(tmp_path / "a", rank=2) / WEIGHTS)
    (tmp_path / "a" / WEIGHTS).unlink()
    for number in (1, 2):
        part = {name: tensor for n, (name, tensor) in enumerate(stored.items()) if n % 2 == number - 1}
        save_file(part, tmp_path / "a" / SHARD.format(number))
    adapter = load_adapter(tmp_path / "a")
    assert adapter.sites == whole.sites
    for site in whole.sites:
        assert adapter.A(site).equal(whole.A(site)) and adapter.B(site).equal(whole.B(site))
