"""The run directory as training writes it: opened once, resumed where it stopped, every file whole or absent."""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from deltaw.errors import UserError
from deltaw.run.adapter import CONFIG, WEIGHTS
from deltaw.run.directory import CHECKPOINT, INPUTS, LOCK, METRICS, RECORD, RUN_CONFIG, RunDirectory

# A run stays the same run on other devices, however its batch is cut, wherever its tokens are kept, and with or
# without inputs beside it.
_NOT_THE_RUN = {
    "plan",
    "run.dir",
    "run.keep_inputs",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "device.memory",
    "device.bandwidth",
    "device.speed",
    "engine",
    "timeout",
    "dry_run",
    "data.micro_batch",
    "data.cache",
}


class RunWriter:
    """One run directory, from the training side. Process 0 alone calls what writes.

    Args:
        path: the directory; it need not exist.
        config: the resolved config, which tells whether a directory holds this same run.
    """

    def __init__(self, path: Path, config: DictConfig):
        self.path, self.config = path, config
        self.run = RunDirectory(path)
        self._lock: TextIO | None = None

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def inputs(self) -> Path:
        return self.path / INPUTS

    def resume_from(self) -> int | None:
        """The step of the checkpoint to go on from; None for a run that starts at 0. Reads only.

        Raises:
            UserError: the directory holds another run, or something else.
        """
        ours = {LOCK, _unfinished(self.path / RUN_CONFIG).name}  # all there is until the config is in place
        try:
            if not self.path.exists() or {entry.name for entry in self.path.iterdir()} <= ours:
                return None
            there = OmegaConf.load(self.path / RUN_CONFIG)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path} is there and holds no {RUN_CONFIG} of a run: give another run.name"
            ) from error
        if different := _differences(there, self.config):
            raise UserError(
                f"{self.path} holds a run of another config ({'; '.join(different)}): "
                "give another run.name, or delete it"
            )
        return _step_of(self.checkpoint) if self.checkpoint.exists() else None

    def open(self, step: int | None, record: dict[str, Any]) -> None:
        """Take the directory for this process and write its config and record, or cut a resumed run back to `step`.

        Raises:
            UserError: another live process has it, it changed since `resume_from`, or the base or the data did.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open("w")
        except OSError as error:
            raise UserError(f"run.dir={self.path} cannot be written ({error.strerror}): give another") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{self.path} is being written by another process: wait for it, or stop it") from error
        if self.resume_from() != step:
            raise UserError(f"{self.path} changed while this run was starting: start it again")
        if (self.path / RECORD).exists():
            self._check_same(record)
        with self.writing(self.path):
            _write(self.path / RUN_CONFIG, OmegaConf.to_yaml(self.config, resolve=True))
            if not (self.path / RECORD).exists():
                _write(self.path / RECORD, json.dumps(record, indent=2) + "\n")
            self._cut_metrics(step)

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """While something is written to `path`, by whatever library.

        Raises:
            UserError: the disk is full, or the place cannot be written.
        """
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} could not be written ({error}): what was there before is whole; make room, and the same "
                "command goes on from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Give the directory back."""
        if self._lock:
            self._lock.close()

    def _check_same(self, record: dict[str, Any]) -> None:
        there: dict[str, Any] = dict(self.run.record)
        for part, key in (("base", "sha256"), ("data", "fingerprint")):
            if there[part][key] != record[part][key]:
                raise UserError(
                    f"{self.path} was begun with {part} {there[part][key][:12]} and now it is "
                    f"{record[part][key][:12]}: give another run.name, or bring the old one back"
                )

    def _cut_metrics(self, step: int | None) -> None:
        lines = (self.path / METRICS).read_text().splitlines()[1:] if (self.path / METRICS).exists() else []
        kept = [line for line in lines if step is not None and int(line.split(",")[0]) <= step]
        _write(self.path / METRICS, "".join(f"{line}\n" for line in ["step,arm,name,value", *kept]))

    def append_metrics(self, step: int, rows: Iterable[tuple[str, str, float]]) -> None:
        """Add rows of (arm, name, value) after `step`."""
        with self.writing(self.path / METRICS), (self.path / METRICS).open("a") as file:
            file.write("".join(f"{step},{arm},{name},{value!r}\n" for arm, name, value in rows))

    def write_inputs(self, tensors: dict[str, Float[Tensor, "tokens d_in"]]) -> None:
        """Inputs of the adapted modules, by the module's name."""
        with self.writing(self.inputs):
            save_file(tensors, _unfinished(self.inputs))
            _unfinished(self.inputs).replace(self.inputs)

    def write_snapshot(
        self,
        arm: str,
        step: int,
        tensors: dict[str, Tensor],
        config: dict[str, object],
        told: dict[str, str] | None = None,
    ) -> None:
        """The factors of `arm` after `step`, in PEFT's format. The start is never written twice.

        Args:
            arm: its name.
            step: optimiser steps that it has taken.
            tensors: the factors by their names in PEFT's format.
            config: `adapter_config.json`.
            told: metadata of the weights' file.
        """
        folder = self.run.snapshot(arm, step)
        if step == 0 and folder.exists():
            return
        new, old = _unfinished(folder), folder.with_name(f".{folder.name}.old")
        for left in (new, old):  # of a run that was killed here
            shutil.rmtree(left, ignore_errors=True)
        with self.writing(folder):
            new.mkdir(parents=True)
            save_file(tensors, new / WEIGHTS, metadata={"format": "pt"} | (told or {}))
            (new / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _write(path: Path, text: str) -> None:
    _unfinished(path).write_text(text)
    _unfinished(path).replace(path)


def _step_of(checkpoint: Path) -> int:
    try:
        step: int = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["global_step"]
    except Exception as error:  # a checkpoint cut short fails in many ways
        raise UserError(f"{checkpoint} cannot be read ({error}): delete it to start the run again") from error
    return step


def _differences(there: Any, here: DictConfig) -> list[str]:
    old, new = _flat(OmegaConf.to_container(there)), _flat(OmegaConf.to_container(here, resolve=True))
    keys = sorted((old.keys() | new.keys()) - _NOT_THE_RUN)
    missing = "nothing"
    return [
        f"{key} is {old.get(key, missing)} there and {new.get(key, missing)} here"
        for key in keys
        if old.get(key, missing) != new.get(key, missing)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}
