"""The files of a folder in PEFT's format, read without PEFT: the config, and the header of the weights."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Required, TypedDict

import pyarrow as pa  # type: ignore[import-untyped]
from huggingface_hub import try_to_load_from_cache
from pyarrow import compute

from deltaw.errors import UserError
from deltaw.model.fused import Fused
from deltaw.run.adapter_folder import CONFIG as CONFIG
from deltaw.run.adapter_folder import EMPTY, SHARDS, WEIGHTS, by_tensors, way_on
from deltaw.run.json_files import misfit, parse_json, read_json
from deltaw.run.loralib import Pair, unmerge
from deltaw.run.tensors import StoredTensor, by_content, locate, read_header, read_metadata

SPLIT = "deltaw.split"  # key in the metadata of the weights: the fused layers split before training, as JSON

_BASE_CONFIG = "config.json"  # in the folder of a transformers model

# PEFT's wrapper around the base, the module, and the adapter's name if the state was saved with it; loralib's names end
# at the factor.
_FACTOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:(?:\.(?P<adapter>[^.]+))?\.weight)?"
)

_NOT_B_A = {
    "use_qalora": "A acts on pooled inputs",
    "use_bdlora": "the factors are stored as blocks of A or B",
    "kasa_config": "a learned diagonal stands between B and A",
    "arrow_config": "a router mixes several adapters",
}


class _Config(TypedDict, total=False):
    """What is read of `adapter_config.json`; PEFT's LoraConfig explains it, and may write null for what is not set."""

    lora_alpha: Required[float]
    base_model_name_or_path: str | None
    target_modules: str | list[str] | None
    target_parameters: list[str] | None
    modules_to_save: list[str] | None
    rank_pattern: dict[str, int] | None
    alpha_pattern: dict[str, float] | None
    init_lora_weights: bool | str | None
    use_rslora: bool | None
    use_dora: bool | None
    fan_in_fan_out: bool | None
    enable_lora: tuple[bool, bool, bool] | None  # of PEFT's first versions, and of `deltaw.run.loralib`


@dataclass(frozen=True)
class Contents:
    """What the weights of an adapter hold.

    Attributes:
        pairs: A and B of every linear layer, by its module.
        others: the names of other tensors and of other kinds of modules.
        split: by module, the layout of each fused layer of the base that `pairs` has as several layers.
        assumed: the modules of `split` that nothing but the paper's code tells to be q and v.
    """

    pairs: dict[str, Pair]
    others: list[str]
    split: dict[str, Fused]
    assumed: list[str]


def read_config(path: Path) -> dict[str, Any]:
    """The content of `adapter_config.json`, whose values have the types that `_Config` tells.

    Raises:
        UserError: the file is missing or broken, or ΔW is not scale · B A.
    """
    try:
        config = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(way_on(path.parent)) from None
    except (OSError, ValueError) as error:
        if cause := by_content(path):
            raise UserError(f"{path} is {cause}") from None
        raise UserError(f"{path} cannot be read ({error}): save the adapter again") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind is None and not (path.parent / WEIGHTS).exists():
        raise UserError(way_on(path.parent))
    if kind != "LORA":
        raise UserError(
            f"{path} has peft_type {kind!r}: only of 'LORA' adapters ΔW is scale · B A, give such a one "
            "(peft.save_as_lora approximates some other types by one)"
        )
    for key, reason in _NOT_B_A.items():
        if config.get(key):
            raise UserError(f"{path} has {key}: {reason}, so ΔW is not scale · B A: give an adapter without it")
    if wrong := misfit(config, _Config) or _misfit_pattern(config):
        raise UserError(f"{path}: {wrong}: put it right, or save the adapter again")
    return config


def _misfit_pattern(config: dict[str, Any]) -> str | None:
    """The first key of `alpha_pattern` that is no pattern, and why."""
    try:
        for key in config.get("alpha_pattern") or {}:
            compute.match_substring_regex(pa.array([""]), _whole(key))
    except pa.ArrowInvalid as error:
        return f"alpha_pattern has {key!r}, which is no pattern without look-around and back-references ({error})"
    return None


def alphas(config: dict[str, Any], modules: Sequence[str]) -> dict[str, float]:
    """`lora_alpha` by module: of the first key in `alpha_pattern` that PEFT finds to fit, or else the config's own.

    Arrow matches in linear time, whatever the pattern; Python's `re` may take forever.
    """
    names, found = pa.array(modules, pa.string()), dict.fromkeys(modules, float(config["lora_alpha"]))
    for key, alpha in reversed((config.get("alpha_pattern") or {}).items()):
        fitting = compute.indices_nonzero(compute.match_substring_regex(names, _whole(key))).to_pylist()
        found |= {modules[number]: float(alpha) for number in fitting}
    return found


def with_ranks(config: Mapping[str, Any], layers: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """A config with other ranks, and alphas with which PEFT computes the given scales.

    Args:
        config: content of `adapter_config.json`.
        layers: rank and scale by module; the most common ones become `r` and `lora_alpha`, the others patterns.
    """
    rslora = bool(config.get("use_rslora"))
    settings = {module: (rank, _alpha(rank, scale, rslora)) for module, (rank, scale) in layers.items()}
    ((rank, alpha), _), *_ = Counter(settings.values()).most_common()
    return {
        **config,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module: r for module, (r, _) in settings.items() if r != rank},
        "alpha_pattern": {module: a for module, (_, a) in settings.items() if a != alpha},
    }


def _alpha(rank: int, scale: float, rslora: bool) -> int | float:
    alpha = round(scale * (sqrt(rank) if rslora else rank), 12)
    return int(alpha) if alpha.is_integer() else alpha


def _whole(key: str) -> str:
    """The expression by which PEFT matches a key of `alpha_pattern` with the name of a module."""
    return rf"^(?:(.*\.)?({key})$)"


def read_base_config(base: str) -> dict[str, Any]:
    """The config of a base in a local folder or in the local cache of the Hub; empty for a base elsewhere."""
    try:
        path = Path(base) / _BASE_CONFIG
        if not path.is_file():
            path = Path(try_to_load_from_cache(base, _BASE_CONFIG) or "")
        config = read_json(path) if base else {}
    except (OSError, ValueError, TypeError):  # TypeError: the cache knows that the base has no such file
        return {}
    return config if isinstance(config, dict) else {}


def read_contents(folder: Path, config: dict[str, Any]) -> Contents:
    """The linear layers with LoRA, and what else the weights of an adapter hold; their header alone is read.

    Raises:
        UserError: the weights are missing or broken, hold no LoRA of linear layers, or several adapters; or a factor
            is missing or does not fit its partner.
    """
    headers = {name: (path, entry) for path in _files(folder) for name, entry in read_header(path).items()}
    factors, others = _factors(folder / WEIGHTS, headers)
    contents = Contents({}, others, {}, [])
    for module, names in factors.items():
        if not _is_linear(module, [headers[name][1]["shape"] for name in names], config):
            others.append(module)
            continue
        A, B = (locate(headers[name][0], name, headers[name][1]) for name in names)
        pairs, split = unmerge(module, (A, B), config)
        if twice := sorted(contents.pairs.keys() & pairs.keys()):
            raise UserError(f"{folder / WEIGHTS} holds {twice[0]} twice, alone and merged: save the adapter again")
        contents.pairs.update(pairs)
        contents.split.update(split)
    for module, pair in contents.pairs.items():
        _check_fit(module, *pair)
    if not contents.pairs:
        cause = by_tensors(list(headers)) or "without a tensor named *.lora_A.weight: give LoRA of linear layers"
        raise UserError(f"{folder / WEIGHTS} is {cause}")
    if not config.get("enable_lora"):
        contents.assumed.extend(module for module in contents.split if f"{module}.k_proj" not in contents.pairs)
    contents.split.update(_split_before(folder, contents.pairs))
    return contents


def _files(folder: Path) -> list[Path]:
    """The file of the weights, or all its shards."""
    shards = sorted(folder.glob(SHARDS)) if not (folder / WEIGHTS).exists() else []
    if shards and all(shard.stem.endswith(f"-of-{len(shards):05}") for shard in shards):
        return shards
    if not (folder / WEIGHTS).exists():
        raise UserError(way_on(folder))
    return [folder / WEIGHTS]


def _factors(path: Path, header: Iterable[str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """The names of A and B by module; then the names of all other tensors."""
    found: dict[str, dict[str, str]] = {}
    adapters, twins, others = set(), list[tuple[str, str]](), list[str]()
    for name in header:
        if not (match := _FACTOR.fullmatch(name)):
            others.append(name)
            continue
        adapters.add(match["adapter"])
        if (twin := found.setdefault(match["module"], {}).setdefault(match["factor"], name)) != name:
            twins.append((twin, name))
    if len(adapters) > 1:
        raise UserError(f"{path} holds the adapters {sorted(map(str, adapters))}: save each to a folder of its own")
    for twin, name in twins:
        raise UserError(f"{path} holds {twin} and {name}, one factor in two names: save each to a folder of its own")
    return {module: _both(path, names) for module, names in found.items()}, others


def _both(path: Path, names: dict[str, str]) -> tuple[str, str]:
    for factor, partner in ("AB", "BA"):
        if factor not in names:
            missing = f".lora_{factor}".join(names[partner].rsplit(f".lora_{partner}", 1))
            raise UserError(f"{path} lacks {missing} and has its partner: save the adapter again")
    return names["A"], names["B"]


def _split_before(folder: Path, pairs: Mapping[str, Pair]) -> dict[str, Fused]:
    """By module: the layout of each fused layer that was split before training, if one of its parts has LoRA.

    Raises:
        UserError: the metadata are broken, or do not fit the factors.
    """
    layouts: dict[str, Fused] = {}
    for path in _files(folder):
        try:
            found = parse_json(read_metadata(path).get(SPLIT, "{}"))
        except ValueError as error:
            raise UserError(
                f"{path} has metadata {SPLIT} that tell no rows ({error}): save the adapter again"
            ) from None
        if wrong := misfit(found, dict[str, Fused], SPLIT):
            raise UserError(f"{path} has metadata that tell no rows, {wrong}: save the adapter again")
        layouts |= {module: Fused(one["blocks"], one["widths"], one["transposed"]) for module, one in found.items()}
    parts = {module: {letter for letter in "qkv" if f"{module}.{letter}_proj" in pairs} for module in layouts}
    for module, letters in parts.items():
        rows = {letter: pairs[f"{module}.{letter}_proj"][1].shape[0] for letter in letters}
        if not _fits(layouts[module], rows):
            raise UserError(
                f"{folder / WEIGHTS} has metadata {SPLIT} of {module} that do not fit its B: save the adapter again"
            )
    return {module: layout for module, layout in layouts.items() if parts[module]}


def _fits(layout: Fused, rows: Mapping[str, int]) -> bool:
    """Whether a layout has these numbers of rows for some of q, k and v."""
    sound = layout.blocks > 0 and min(layout.widths.values(), default=0) > 0
    return sound and all(layout.blocks * layout.widths.get(letter, 0) == count for letter, count in rows.items())


def _is_linear(module: str, shapes: list[list[int]], config: dict[str, Any]) -> bool:
    """Whether the module is a linear layer: no convolution, and no parameter that stacks the A and B of experts."""
    stacks = [name.rpartition(".")[0] or "experts" for name in config.get("target_parameters") or []]
    owner = module.replace(".base_layer", "")  # PEFT wraps a module once for each of its parameters
    return min(map(len, shapes)) <= 2 and not f".{owner}".endswith(tuple(f".{stack}" for stack in stacks))


def _check_fit(module: str, A: StoredTensor, B: StoredTensor) -> None:
    if 0 in (*A.shape, *B.shape):
        raise UserError(f"{A.path}: {module} has A {A.shape} and B {B.shape}: {EMPTY}")
    if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1]:
        shapes = f"A {A.shape} and B {B.shape}, not (rank, d_in) and (d_out, rank)"
        raise UserError(f"{A.path}: {module} has {shapes}: save the adapter again")
