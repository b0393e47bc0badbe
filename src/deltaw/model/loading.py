"""Load a frozen base and its tokenizer: the bundled model, a local folder, or a model on the hub."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.peft_utils import find_adapter_config_file

from deltaw.config.folder import BUNDLED
from deltaw.config.schema import NF4
from deltaw.errors import UserError
from deltaw.model.four_bits import check_dtype, make_trainable
from deltaw.model.heads import Initialiser, heads_of
from deltaw.model.hub import look_for_the_hub
from deltaw.model.short_attention import use_products_for_short_rows
from deltaw.run.places import sense

AUTO_MODELS: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}

# How the names of tables of positions end.
_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings)$")


@dataclass
class Base:
    """A pretrained model, and what a run records of it.

    Attributes:
        name: its part of the run's name.
        path: the folder or the hub name that was given.
        folder: where its files are: `path` itself, or the hub's snapshot on this machine.
        sha256: hash of its safetensors files, in the order of their names.
        model: the model, in training mode.
        pad: the token that pads rows.
        heads: the modules of a classifier's head, which each arm has a copy of, with what draws their weights.
    """

    name: str
    path: str
    folder: Path
    sha256: str
    model: PreTrainedModel
    pad: int
    heads: dict[str, Initialiser | None]


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the model at `path`.

    Raises:
        UserError: transformers cannot load one.
    """
    with _loading(path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(_resolved(path))
    return tokenizer


def check_weights(path: str) -> None:
    """Refuse a local folder without weights in safetensors that may be read.

    Raises:
        UserError: there are none, or one may not be read.
    """
    folder = Path(_resolved(path))
    if not folder.is_dir():
        return
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = ", ".join(sorted(file.name for file in folder.glob("*.bin")))
        raise UserError(
            f"model.path={path} has no *.safetensors{f' but {pickled}' if pickled else ''}: give a folder with "
            "safetensors weights, as save_pretrained of transformers writes it"
        )
    for file in files:
        if file.exists() and not os.access(file, os.R_OK):  # as others' files, which safetensors keeps to their owner
            raise UserError(f"model.path={path}: {file.name} may not be read: run chmod a+r on it, or ask its owner to")


def load_base(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
    task: str = "causal",
    labels: int | None = None,
) -> Base:
    """Load the model at `path` ("bundled", a local folder or a hub name) for a task, from safetensors alone.

    The dropout of the base is set to 0, because its masks would depend on which arms share a pass.

    Args:
        path: the model.
        tokenizer: its tokenizer.
        dtype: of its weights: "float32", "bfloat16", or "nf4", which loads bfloat16 for `quantise`.
        gradient_checkpointing: whether to compute activations again in the backward pass instead of keeping them.
        task: one of `AUTO_MODELS`.
        labels: number of classes of a classification; a head for another number is drawn anew.

    Raises:
        UserError: transformers cannot load `path` for this task, or some of its weights are missing.
    """
    name, path = Path(path).name, _resolved(path)
    use_products_for_short_rows()
    model, missing = _load(path, dtype, task, labels)
    heads = heads_of(model, missing) if task == "classification" else {}
    if missing and not heads:
        raise UserError(f"model.path={path} lacks {len(missing)} weights, as {missing[0]}: give a complete checkpoint")
    _check_direction(model, task)
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    _keep_no_cache(model)
    folder = Path(path) if Path(path).is_dir() else Path(snapshot_download(path, local_files_only=True))
    pad = _pad(model, tokenizer, task)
    return Base(name, path, folder, _sha256(folder), model.train(), pad, heads)  # `from_pretrained` leaves eval mode


def _load(path: str, dtype: str, task: str, labels: int | None) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of the weights that its checkpoint lacks or has in another shape."""
    torch_dtype = _torch_dtype(dtype)
    config = _config(path, dtype, labels)
    with _loading(path):
        loaded: Any = _auto_model(task, config).from_pretrained(
            path,
            config=config,
            dtype=torch_dtype,
            device_map="cpu",  # a model stored in 4 bits would go elsewhere by default
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=task == "classification",  # a head may have other labels; the report tells
        )
    model, report = loaded
    make_trainable(model)
    return model, sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})


def base_shape(path: str, dtype: str = "float32", task: str = "causal", labels: int | None = None) -> Base:
    """The model at `path` on the meta device, from its config.json: it needs neither weights nor tokenizer.

    Raises:
        UserError: `path` has no config, or transformers has no such model for this task.
    """
    torch_dtype = _torch_dtype(dtype)
    config = _config(_resolved(path), dtype, labels)
    with _loading(path), torch.device("meta"):
        model: Any = _auto_model(task, config).from_config(config, dtype=torch_dtype)
    _keep_no_cache(model)
    heads = heads_of(model, []) if task == "classification" else {}
    return Base(Path(path).name, path, Path(path), "", model.train(), 0, heads)


def _torch_dtype(dtype: str) -> torch.dtype:
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, NF4: torch.bfloat16}
    if dtype not in dtypes:
        raise UserError(
            f"model.dtype={dtype} is none of float32, bfloat16 and nf4, the dtypes of a base; factors are float32"
        )
    return dtypes[dtype]


def _config(path: str, dtype: str, labels: int | None) -> PreTrainedConfig:
    """The config of a model that can be trained on, without dropout.

    Raises:
        UserError: there is none, or an adapter lies beside it, or the weights are not as `dtype` says.
    """
    _check_no_adapter(path)
    with _loading(path):
        config: PreTrainedConfig = AutoConfig.from_pretrained(path)
    for part in (config, config.get_text_config()):
        check_dtype(path, dtype, getattr(part, "quantization_config", None))
    _without_dropout(config)
    if labels is not None:
        config.num_labels = labels
    return config


def _check_no_adapter(path: str) -> None:
    """Refuse a folder with an adapter, which transformers would load together with the model, without a word."""
    with _loading(path):
        file = find_adapter_config_file(path)
    if file is None:
        return
    base = None
    with suppress(OSError, ValueError, AttributeError):
        base = json.loads(Path(file).read_text(encoding="utf-8")).get("base_model_name_or_path")
    adapter = f"an adapter ({Path(file).name}, on {base or 'a base that it does not name'})"
    merge = (
        "merge it into the base by PEFT's merge_and_unload and save_pretrained, and give the folder that this writes"
    )
    if (Path(file).parent / "config.json").exists():
        raise UserError(
            f"model.path={path} has {adapter} beside a model, and arms would train on both: {merge}; or give a copy "
            "of the folder without the adapter's files"
        )
    raise UserError(f"model.path={path} is {adapter} and no model: give model.path={base or 'the base'}; or {merge}")


def _without_dropout(config: PreTrainedConfig) -> None:
    """Set every dropout in a config to 0, in the configs inside it too."""
    for key, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _without_dropout(value)
        elif "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)


def _keep_no_cache(model: PreTrainedModel) -> None:
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False


def _auto_model(task: str, config: PreTrainedConfig) -> Any:
    """The class that loads a model for a task. A decoder that also sees or hears has no class for text alone."""
    kind = type(config)
    if task == "causal" and kind not in AutoModelForCausalLM._model_mapping and not config.is_encoder_decoder:
        return AutoModelForMultimodalLM if kind in AutoModelForMultimodalLM._model_mapping else AutoModelForCausalLM
    return AUTO_MODELS[task]


def tokens_read(model: PreTrainedModel) -> int:
    """The number of tokens that a model has an embedding for, whatever its tokenizer has."""
    return len(model.get_input_embeddings().get_parameter("weight"))


def longest_read(model: PreTrainedModel) -> int | None:
    """The length of the longest text that a model reads, if it has a table of positions; None if it computes them."""
    tables = [
        layer.num_embeddings - (0 if layer.padding_idx is None else layer.padding_idx + 1)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Embedding) and _POSITIONS.search(name) and not sense(name)
    ]
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min([*tables, *([stated] if stated else [])]) if tables else None


def _resolved(path: str) -> str:
    if path == "bundled":
        return str(BUNDLED)
    if Path(path).is_dir():
        return str(Path(path).resolve())
    if Path(path).is_file():
        raise UserError(f"model.path={path} is a file: give the folder with config.json, safetensors and a tokenizer")
    look_for_the_hub()
    return path


@contextmanager
def _loading(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"model.path={path} could not be loaded ({str(error).splitlines()[0]}): give a local folder with "
            "config.json, safetensors weights and a tokenizer, or the name of such a model on the hub; it must be of a "
            "kind that fits the task"
        ) from error


def _pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str) -> int:
    """The token that pads rows: the model's, the tokenizer's, or its end of text; the model's config gets it too."""
    config = model.config.get_text_config()
    candidates = [config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id]
    read = range(tokens_read(model))  # some configs have -1 for none, some tokenizers a token that the model lacks
    pads = [pad for pad in candidates if pad in read]
    if task == "causal":  # no token attends to padding
        return pads[0] if pads else 0
    if not pads:
        raise UserError(
            f"{tokenizer.name_or_path} has neither pad_token nor eos_token, and task={task} must know where a row "
            "ends: name one in the tokenizer's config"
        )
    config.pad_token_id = model.config.pad_token_id = pads[0]
    return pads[0]


@torch.no_grad()
def _check_direction(model: PreTrainedModel, task: str) -> None:
    """Refuse a model that looks ahead for task=causal: the logits of a token must not depend on the next one."""
    if task != "causal":
        return
    logits = model(input_ids=torch.tensor([[1, 1], [1, 2]])).logits[:, 0].float()
    if not torch.allclose(logits[0], logits[1], rtol=1e-3, atol=1e-4):
        raise UserError(
            f"{type(model).__name__} of {model.name_or_path} looks ahead, so that task=causal would teach it to copy: "
            "give a decoder, or task=classification"
        )


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no *.safetensors: give a model.path with safetensors weights")
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
