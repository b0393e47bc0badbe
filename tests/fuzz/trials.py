"""Adapter folders and run directories with mutated files, and what an analysis reads of them."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltaw.analysis.losses import losses_of
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.analysis.study import study_of
from deltaw.model.fused import Fused
from deltaw.report.notebook import compare
from deltaw.run.adapter import Adapter, load_adapter
from deltaw.run.directory import RunDirectory
from deltaw.run.peft_files import SPLIT, WEIGHTS
from tests.fuzz.mutations import spoil
from tests.support.folders import WIDTH, write_adapter, write_evaluation, write_run

Files = dict[str, bytes]  # content by path below the folder

_BASE = {"model_type": "gpt_neox", "num_attention_heads": 4, "hidden_size": WIDTH, "text_config": {"head_dim": 4}}


class Trials:
    """Sound folders to mutate, and a place to write them to.

    Args:
        scratch: an empty folder.
    """

    def __init__(self, scratch: Path):
        self._mutated, sound = scratch / "mutated", scratch / "sound"
        folders = _folders(sound, base=self._mutated / "base")
        self._adapters = [_read(folder) for folder in folders]
        self._partners = [load_adapter(folder) for folder in folders]
        self._run = _read(_write_run(sound / "run"))

    def __call__(self, seed: int) -> None:
        """Mutate a folder as `seed` tells, and analyse it.

        Raises:
            UserError: the folder cannot be used. Any other error is a fault of the code.
        """
        rng = Random(seed)
        number = rng.randrange(len(self._adapters) + 1)
        of_run = number == len(self._adapters)
        files = dict(self._run if of_run else self._adapters[number])
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _mutate(files, rng)
        _write(files, self._mutated)
        if of_run:
            _analyse_run(RunDirectory(self._mutated))
        else:
            _analyse_adapter(self._mutated, self._partners[number], rng)


def _folders(sound: Path, base: Path) -> list[Path]:
    """An adapter of each kind: plain, with patterns, of a fused layer, of loralib, and of a layer that was split."""
    plain = write_adapter(sound / "plain", rank=2, layers=1)
    patterned = write_adapter(
        sound / "patterned",
        rank=2,
        layers=1,
        rank_pattern={"q_proj": 2},
        alpha_pattern={r"layers\.0\.q_proj": 8, ".*v_proj": 4},
        target_modules=["q_proj"],
        target_parameters=["x.y"],
        modules_to_save=None,
        init_lora_weights=True,
        use_rslora=True,
        use_dora=False,
    )

    fused = write_adapter(sound / "fused", rank=2, layers=1, base_model_name_or_path=str(base), fan_in_fan_out=False)
    _rewrite(fused, _factors("base_model.model.gpt_neox.layers.0.attention.query_key_value", 2, 3 * WIDTH, ".weight"))
    (fused / "base").mkdir()
    (fused / "base" / "config.json").write_text(json.dumps(_BASE))

    loralib = write_adapter(sound / "loralib", rank=2, layers=1, enable_lora=[True, False, True])
    _rewrite(loralib, _factors("transformer.h.0.attn.c_attn", 4, 2 * WIDTH, "", columns=2))

    split = write_adapter(sound / "split", rank=2, layers=1)
    layout = {"layers.0.c_attn": asdict(Fused(1, dict.fromkeys("qkv", WIDTH), transposed=True))}
    tensors = load_file(split / WEIGHTS)
    renamed = {name.replace("layers.0", "layers.0.c_attn"): tensor for name, tensor in tensors.items()}
    _rewrite(split, renamed, {SPLIT: json.dumps(layout)})
    return [plain, patterned, fused, loralib, split]


def _factors(module: str, rows: int, d_out: int, end: str, columns: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(*shape, generator=generator) for shape in ((rows, WIDTH), (d_out, columns or rows)))
    return {f"{module}.lora_A{end}": A, f"{module}.lora_B{end}": B}


def _rewrite(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    save_file(tensors, folder / WEIGHTS, metadata=metadata)


def _write_run(path: Path) -> Path:
    """A run of two ranks and two seeds with a shadow and a control, one layer deep."""
    write_run(path, "r2-s0", "r4-s0", "r4-s1", "r2-s0-shadow1", "r4-s0-random", layers=1)
    losses = {(arm, step): [4.0 - step / 10, 3.0] for arm in ("r2-s0", "r4-s0") for step in (0, 10)}
    write_evaluation(path, losses, labels=[2, 3])
    (path / "config.yaml").write_text("trainer:\n  max_steps: 10\nmodel: {path: bundled, dtype: null}\n")
    record = json.loads((path / "run.json").read_text())
    place = {"file": "/base/model.safetensors", "tensor": "q.weight", "rows": [[0, WIDTH]], "transposed": False}
    more = {"modules": {"layers.0.q_proj": "q"}, "weights": {"layers.0.q_proj": place}, "data": {"fingerprint": "a"}}
    (path / "run.json").write_text(json.dumps(record | more))
    return path


def _mutate(files: Files, rng: Random) -> None:
    """Mutate one file, or remove it."""
    if not files:
        return
    # Each kind of file as often as any other: a run has many snapshots.
    kinds = sorted({name.rpartition("/")[2] for name in files})
    kind = rng.choice(kinds)
    name = rng.choice([name for name in sorted(files) if name.rpartition("/")[2] == kind])
    if rng.random() < 0.03:
        del files[name]
    else:
        files[name] = spoil(name, files[name], rng)


def _analyse_adapter(folder: Path, partner: Adapter, rng: Random) -> None:
    as_start = rng.random() < 0.1
    adapter = load_adapter(partner.folder, start=folder) if as_start else load_adapter(folder)
    _check_text(compare(adapter, partner).remarks)


def _analyse_run(run: RunDirectory) -> None:
    """What `deltaw analyze run=` reads."""
    left, right = (find_adapter(name, [run], None) for name in default_pair([run], None, None))
    losses_of([left, right])
    _ = run.max_steps
    list(study_of(left, right).pairings())
    _check_text(compare(left, right).remarks)


def _check_text(lines: list[str]) -> None:
    """Raise a UnicodeEncodeError for what no terminal and no file takes."""
    "".join(lines).encode()


def _read(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _write(files: Files, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
