"""The files of an adapter folder in PEFT's format; and what users take for such a folder, with the way on for each."""

import re
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from deltaw.run.tensors import by_content, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SHARDS = "adapter_model-*-of-*.safetensors"

_RECORD = "run.json"
_DEEPEST = 3  # levels below a folder that are searched for adapters: a run has them at snapshots/r8-s0/step-00000100
_MOST = 1000  # adapters of a level to look at
_NAMED = 4  # in a message

_MLX = (
    "an adapter of MLX: write lora_a and lora_b, each transposed, as *.lora_A.weight and *.lora_B.weight to "
    f"{WEIGHTS}, and peft_type LORA, r and lora_alpha = r · scale to {CONFIG}"
)
_KOHYA = (
    "an adapter of kohya's scripts (lora_down, lora_up): convert it with "
    "examples/stable_diffusion/convert_sd_adapter_to_peft.py of PEFT, and give a folder that it writes"
)
_NO_CONFIG = (
    f"LoRA without PEFT's config, as of diffusers: copy it as {WEIGHTS} to a folder of its own, beside an {CONFIG} "
    "with peft_type LORA and lora_alpha (the rank, where nothing tells)"
)
_OLD_DIFFUSERS = "LoRA in the names of older diffusers: load and save it with a diffusers that writes lora_A and lora_B"
_MODEL = "a whole model, and a merged one no longer tells its ΔW: give the folder of the adapter"
_ZERO_3 = (
    "DeepSpeed ZeRO-3 shards it: save the adapter again with stage3_gather_16bit_weights_on_model_save, or gather it "
    "from the checkpoint with zero_to_fp32.py"
)
EMPTY = f"empty, as an adapter is saved where {_ZERO_3}"
_PICKLED = (
    "pickled, and nothing pickled is read: convert it with safetensors.torch.save_file(torch.load('{file}', "
    f"weights_only=True), '{{folder}}/{WEIGHTS}')"
)
_CHECKPOINT = "a pickled checkpoint, as of Lightning: load it, and save the adapter with PEFT's save_pretrained"
_GGUF = "in the format of llama.cpp: give the PEFT folder that it was converted from"
_ARCHIVE = "an archive: unpack it, and give the folder with the adapter"

# By a pattern of the file's name; the first that fits holds.
_BY_NAME = {
    SHARDS: "one of several shards, and not all are there: copy the others too, or save the adapter in one file",
    "adapters.safetensors": _MLX,
    "pytorch_model*.bin": _MODEL,
    "pytorch_lora_weights.safetensors": _NO_CONFIG,
    **dict.fromkeys(("adapter_model*.bin", "pytorch_*.bin", "adapter_*.pt", "*.pth.lora"), _PICKLED),
    "*.distcp": "sharded by PyTorch: gather it, for example with accelerate merge-weights, and save it with PEFT",
    "zero_to_fp32.py": f"of a checkpoint where {_ZERO_3}",
    "model*.safetensors": _MODEL,
    "*.ckpt": _CHECKPOINT,
    "*.gguf": _GGUF,
    **dict.fromkeys(("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z"), _ARCHIVE),
}
_PICKLES = (".bin", ".pt", ".pth", ".lora")

# By a part of a tensor's name.
_BY_TENSOR = {
    ".lora_a": _MLX,
    "lora_unet_": _KOHYA,
    "lora_te": _KOHYA,
    ".lora_down.": _KOHYA,
    ".lora.down.": _OLD_DIFFUSERS,
    ".lora_linear_layer.": _OLD_DIFFUSERS,
    ".lora_A": _NO_CONFIG,
    ".hada_w": "a LoHa, whose ΔW is no scale · B A: give a LoRA",
    ".lokr_w": "a LoKr, whose ΔW is no scale · B A: give a LoRA",
}


def way_on(path: Path) -> str:
    """Why `path` is no adapter folder in PEFT's format, or lacks its weights, and what to give instead: one line."""
    if path.is_dir():
        return _of_folder(path)
    if path.exists():
        return _of_file(path)
    hub = re.fullmatch(r"(?:https?:/+(?:huggingface\.co|hf\.co)/)?([\w.-]+)/([\w.-]+)(?:/tree/.*)?", str(path))
    if hub and not path.parent.exists():
        return (
            f"{path} is no folder here: if it is an adapter of the Hub, run hf download {hub[1]}/{hub[2]} "
            f"--local-dir {hub[2]}, and give {hub[2]}"
        )
    return f"{path} does not exist: give a folder with {CONFIG}, as PEFT's save_pretrained writes it"


def by_tensors(names: list[str]) -> str | None:
    """What has tensors of these names, and the way on; None if they do not tell."""
    if not names:
        return EMPTY
    return next((cause for part, cause in _BY_TENSOR.items() if any(part in name for name in names)), None)


def _of_folder(folder: Path) -> str:
    if runs := sorted(islice(folder.glob(f"*/{_RECORD}"), _MOST)):
        return f"{folder} holds the runs {_listed([run.parent.name for run in runs])}: give one, as {runs[-1].parent}"
    lacking = WEIGHTS if (folder / CONFIG).is_file() else CONFIG
    if adapters := _adapters_below(folder):
        names = [str(adapter.relative_to(folder)) for adapter in adapters]
        kind = "checkpoints of a Trainer" if all(name.startswith("checkpoint-") for name in names) else "adapters"
        return f"{folder} has no {lacking} of its own, but the {kind} {_listed(names)}: give one, as {adapters[-1]}"
    files = sorted(entry.name for entry in folder.iterdir())
    if WEIGHTS in files and by_content(folder / WEIGHTS) is None:
        return f"{folder / CONFIG} is missing: copy it from where the adapter was saved, for its lora_alpha"
    return f"{folder / lacking} is missing{_instead(folder, files)}"


def _adapters_below(folder: Path) -> list[Path]:
    """The adapter folders at the first level below `folder` that has any, the latest step last."""
    for depth in range(1, _DEEPEST + 1):
        if found := list(islice(folder.glob("*/" * depth + CONFIG), _MOST)):
            return sorted((config.parent for config in found), key=_by_number)
    return []


def _instead(folder: Path, files: list[str]) -> str:
    """What a folder without adapters holds in place of one."""
    for pattern in _BY_NAME:
        if found := next((name for name in files if fnmatchcase(name, pattern)), None):
            return f", and {_of_file(folder / found)}"
    if found := next((name for name in files if name.endswith(".safetensors")), None):
        return f", and {_of_file(folder / found)}"
    there = f"holds {_listed(files)}" if files else "is empty"
    return f", and {folder} {there}: give a folder that PEFT's save_pretrained wrote"


def _of_file(path: Path) -> str:
    if path.name in (CONFIG, WEIGHTS) and (path.parent / CONFIG).is_file():
        return f"{path} is a file of an adapter: give its folder, {path.parent}"
    by_name = (cause for pattern, cause in _BY_NAME.items() if fnmatchcase(path.name, pattern))
    cause = by_content(path) or next(by_name, None) or (_PICKLED if path.suffix in _PICKLES else None)
    if cause is None and path.suffix == ".safetensors":
        cause = by_tensors(list(read_header(path)))
    cause = cause or f"a file, and no folder with {CONFIG}: give one that PEFT's save_pretrained wrote"
    return f"{path} is {cause.format(file=path, folder=path.parent)}"


def _by_number(path: Path) -> list[tuple[str, int]]:
    """A key that sorts checkpoint-90 before checkpoint-100."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", str(path))]


def _listed(names: list[str]) -> str:
    """The last of some names, and how many others there are."""
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[-_NAMED:]) + others
