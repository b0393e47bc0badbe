"""The files of a folder in PEFT's format, read without PEFT: the config, and the header of the weights."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deltaw.errors import UserError
from deltaw.model.fused import Fused
from deltaw.run.tensors import StoredTensor, locate, read_header, read_metadata

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SPLIT = "deltaw.split"  # key in the metadata of the weights: the fused layers split before training, as JSON

_BASE_CONFIG = "config.json"  # in the folder of a transformers model

# PEFT's wrapper around the base, the module, and the adapter's name if the state was saved with it.
_FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")

_NOT_B_A = {
    "use_qalora": "A acts on pooled inputs",
    "use_bdlora": "the factors are stored as blocks of A or B",
    "kasa_config": "a learned diagonal stands between B and A",
    "arrow_config": "a router mixes several adapters",
}


def read_config(path: Path) -> dict[str, Any]:
    """The content of `adapter_config.json`.

    Raises:
        UserError: the file is missing or broken, or ΔW is not scale · B A.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give a folder that PEFT's save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): save the adapter again") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise UserError(f"{path} has peft_type {kind!r}: only of 'LORA' adapters ΔW is scale · B A, give such a one")
    for key, reason in _NOT_B_A.items():
        if config.get(key):
            raise UserError(f"{path} has {key}: {reason}, so ΔW is not scale · B A: give an adapter without it")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise UserError(f"{path} has lora_alpha {alpha!r}, not the number that scales ΔW: put it right")
    return config


def read_base_config(base: str) -> dict[str, Any]:
    """The config of a base in a local folder; empty for a base elsewhere."""
    try:
        config = json.loads((Path(base) / _BASE_CONFIG).read_text(encoding="utf-8")) if base else {}
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def read_pairs(path: Path, config: dict[str, Any]) -> tuple[dict[str, tuple[StoredTensor, StoredTensor]], list[str]]:
    """A and B of every linear layer by its module; then the names of other tensors and of other kinds of modules.

    Raises:
        UserError: the file is missing or broken, holds no LoRA of linear layers, or several adapters; or a factor is
            missing or does not fit its partner.
    """
    header = read_header(path)
    factors, others = _factors(path, header)
    pairs = {}
    for module, names in factors.items():
        _check_both(path, names)
        if _is_linear(module, [header[name]["shape"] for name in names.values()], config):
            A, B = (locate(path, names[factor], header[names[factor]]) for factor in "AB")
            pairs[module] = A, B
            _check_fit(path, module, A, B)
        else:
            others.append(module)
    if not pairs:
        raise UserError(f"{path} has no tensor named *.lora_A.weight: it holds no LoRA of linear layers")
    return pairs, others


def _factors(path: Path, header: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The tensors' names by module and factor, A or B; then the names of all other tensors."""
    factors: dict[str, dict[str, str]] = {}
    adapters, others = set(), []
    for name in header:
        if match := _FACTOR.fullmatch(name):
            factors.setdefault(match["module"], {})[match["factor"]] = name
            adapters.add(match["adapter"])
        else:
            others.append(name)
    if len(adapters) > 1:
        raise UserError(f"{path} holds the adapters {sorted(map(str, adapters))}: save each to a folder of its own")
    return factors, others


def _check_both(path: Path, names: dict[str, str]) -> None:
    for factor, partner in ("AB", "BA"):
        if factor not in names:
            missing = names[partner].replace(f".lora_{partner}.", f".lora_{factor}.")
            raise UserError(f"{path} lacks {missing} and has its partner: save the adapter again")


def read_split(path: Path) -> dict[str, Fused]:
    """By module: the layout of each fused layer of the base that was split before training.

    Raises:
        UserError: the metadata are broken.
    """
    try:
        return {module: Fused(**layout) for module, layout in json.loads(read_metadata(path).get(SPLIT, "{}")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has metadata {SPLIT} that tells no rows ({error}): save the adapter again") from None


def _is_linear(module: str, shapes: list[list[int]], config: dict[str, Any]) -> bool:
    """Whether the module is a linear layer: no convolution, and no parameter that stacks the A and B of experts."""
    stacks = [name.rpartition(".")[0] or "experts" for name in config.get("target_parameters") or []]
    owner = module.replace(".base_layer", "")  # PEFT wraps a module once for each of its parameters
    return min(map(len, shapes)) <= 2 and not f".{owner}".endswith(tuple(f".{stack}" for stack in stacks))


def _check_fit(path: Path, module: str, A: StoredTensor, B: StoredTensor) -> None:
    if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1] or 0 in (*A.shape, *B.shape):
        shapes = f"A {A.shape} and B {B.shape}, not (rank, d_in) and (d_out, rank)"
        raise UserError(f"{path}: {module} has {shapes}: save the adapter again")
