"""What cannot be a base is refused with the way on."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from deltaw.errors import UserError
from deltaw.model.loading import base_shape, check_weights, load_base, longest_read
from tests.support.architectures import ARCHITECTURES


def with_adapter(folder: Path, base: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    return folder


def test_an_adapter_beside_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "base", tmp_path / "both")
    with pytest.raises(UserError, match=r"has an adapter \(adapter_config.json, on some/model\) beside a model.*merge"):
        base_shape(str(with_adapter(tmp_path / "both", "some/model")))


@pytest.mark.parametrize(
    ("base", "way"), [("some/model", "give model.path=some/model;"), (None, "model.path=the base")]
)
def test_an_adapter_alone_is_refused_with_its_base(base: str | None, way: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"is an adapter .* and no model: .*{way}.*merge_and_unload"):
        base_shape(str(with_adapter(tmp_path, base)))


def test_a_file_and_a_folder_without_safetensors_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a file: give the folder"):
        base_shape(str(folder / "base" / "model.safetensors"))
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match=r"has no \*.safetensors but pytorch_model.bin: give a folder with"):
        check_weights(str(tmp_path))
    check_weights(str(folder / "base"))


def test_weights_that_may_not_be_read_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=r"model\.path=.*/base: model\.safetensors may not be read: run chmod a\+r"):
        check_weights(str(folder / "base"))


@pytest.mark.parametrize("place", [[], ["text_config"]])
def test_weights_in_8_bits_are_refused_wherever_the_config_tells_them(place: list[str], tmp_path: Path) -> None:
    quantised = {"quant_method": "fp8"}
    text = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4}
    config = {"model_type": "llava", "text_config": text | quantised_in(place, quantised), "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config if place else text | {"quantization_config": quantised}))
    with pytest.raises(UserError, match="is quantised by fp8, and only the NF4 weights"):
        base_shape(str(tmp_path))


def quantised_in(place: list[str], quantised: dict[str, str]) -> dict[str, object]:
    return {"quantization_config": quantised} if place else {}


def test_a_padding_token_without_an_embedding_does_not_pad(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "base", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= 300
    assert load_base(str(tmp_path / "base"), tokenizer).pad == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("name", "longest"),
    [("llama", None), ("bloom", None), ("gpt2", 160), ("opt", 160), ("bert", 160), ("roberta", 161), ("bart", 160)],
)
def test_the_longest_text_is_the_table_of_positions(name: str, longest: int | None) -> None:
    assert longest_read(ARCHITECTURES[name].build()) == longest  # RoBERTa's begin behind the padding token
