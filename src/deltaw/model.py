"""Load a frozen base and its tokenizer: the bundled one, a local folder, or a model of the hub."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from deltaw.base import BUNDLED
from deltaw.cli import UserError


@dataclass
class Base:
    """A pretrained model as a run records it.

    Attributes:
        name: what the run's name calls it.
        path: the folder or hub name it came from.
        folder: where its files are: the one at `path`, or the hub's snapshot on this machine.
        sha256: of its safetensors files, in the order of their names.
    """

    name: str
    path: str
    folder: Path
    sha256: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_base(path: str, dtype: str = "float32", gradient_checkpointing: bool = False) -> Base:
    """Load the causal language model at `path` ("bundled", a local folder or a hub name) from safetensors alone.

    Its own dropout is set to 0: arms in company would otherwise draw other masks than alone.

    Raises:
        UserError: `path` is no model that transformers can load, or some of its weights are missing.
    """
    name = Path(path).name
    path = str(BUNDLED if path == "bundled" else Path(path).resolve() if Path(path).is_dir() else path)
    torch_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype)
    if torch_dtype is None:
        raise UserError(f"model.dtype={dtype} is not float32 or bfloat16: the base is frozen, its factors are float32")
    try:
        config = AutoConfig.from_pretrained(path)
        for key, value in config.to_dict().items():
            if "drop" in key and isinstance(value, float):
                setattr(config, key, 0.0)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=torch_dtype, use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"model.path={path} could not be loaded ({str(error).splitlines()[0]}): give a local folder with "
            "config.json, safetensors weights and a tokenizer, or the name of such a model on the hub"
        ) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"model.path={path} lacks {len(missing)} weights, as {missing[0]}: give a whole model")
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    folder = Path(path) if Path(path).is_dir() else Path(snapshot_download(path, local_files_only=True))
    return Base(name, path, folder, _sha256(folder), model.train(), tokenizer)  # `from_pretrained` leaves eval mode


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no *.safetensors: give a model.path that is saved so")
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
