"""The run directory from the training side: opened once, resumed where it stopped, every file complete or absent."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from deltaw.errors import UserError
from deltaw.run.directory import (
    CHECKPOINT,
    EVALUATION,
    LOCK,
    METRICS,
    RECORD,
    RUN_CONFIG,
    SNAPSHOTS,
    RunDirectory,
    load_config,
)
from deltaw.run.files import locked, remove, replacing, unfinished
from deltaw.run.identity import differences
from deltaw.run.peft_files import CONFIG, WEIGHTS
from deltaw.run.record import RunRecord

# All that a run has in its directory.
_WRITTEN = (RUN_CONFIG, RECORD, METRICS, EVALUATION, SNAPSHOTS, CHECKPOINT.partition("/")[0], LOCK)

# Why a setting is part of what a run is, where that is not plain.
_REASONS = {
    "trainer.max_steps": ", and the learning rate falls to 0 at the last step, so that no arm can go on from there"
}


class RunWriter:
    """One run directory, as training writes it. Process 0 alone calls the methods that write.

    Args:
        path: the directory; it need not exist.
        config: the resolved config; a directory with another config holds another run.
    """

    def __init__(self, path: Path, config: DictConfig):
        self.path, self.config = path, config
        self.run = RunDirectory(path)
        self._lock = ExitStack()
        self._is_new = self._made_folder = False

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    def resume_from(self) -> int | None:
        """The step of the last checkpoint; None if there is none and the run starts at step 0. Reads only.

        Raises:
            UserError: the directory holds another run, or files that are no run, or may not be read.
        """
        ours = {LOCK, unfinished(self.path / RUN_CONFIG).name}  # a start that was killed before the config
        try:
            if not self.path.exists() or {entry.name for entry in self.path.iterdir()} <= ours:
                return None
            there = load_config(self.path / RUN_CONFIG)
        except PermissionError as error:
            raise UserError(f"run.dir={self.path}: {error.filename} may not be read: give another run.dir") from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"run.dir={self.path} exists and holds no {RUN_CONFIG} of a run: give another run.name or run.dir"
            ) from error
        if different := _differences(there, self.config):
            raise UserError(
                f"{self.path} holds a run of another config ({'; '.join(different)}): "
                "give another run.name, or delete it"
            )
        return _step_of(self.checkpoint) if self.checkpoint.exists() else None

    def check_writable(self) -> None:
        """Refuse a place where no directory can be made.

        Raises:
            UserError: the nearest folder that exists is none, or may not be written to.
        """
        there = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UserError(f"run.dir={self.path} cannot be written, because {there} cannot: give another")

    def open(self, step: int | None, record: RunRecord) -> None:
        """Lock the directory, write the config and a missing record, and cut metrics and evaluation back to `step`.

        Args:
            step: the result of `resume_from` when this process loaded its base.
            record: describes the run that is starting.

        Raises:
            UserError: another process holds the lock; or the directory changed since `resume_from`; or the base or
                the data are not those that the run began with; or another version began it, and it is not finished.
        """
        try:
            self._made_folder = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(locked(self.path / LOCK, wait=False))
        except BlockingIOError as error:
            raise UserError(f"{self.path} is being written by another process: wait for it, or stop it") from error
        except OSError as error:
            raise UserError(f"run.dir={self.path} cannot be written ({error.strerror}): give another") from error
        if self.resume_from() != step:
            raise UserError(f"{self.path} changed while this run was starting: start it again")
        if (self.path / RECORD).exists():
            self._check_same(step, record)
        self._is_new = not (self.path / RUN_CONFIG).exists()
        with self.writing(self.path):
            _write(self.path / RUN_CONFIG, OmegaConf.to_yaml(self.config, resolve=True))
            if not (self.path / RECORD).exists():
                record.save(self.path / RECORD)
            self._cut_metrics(step)
            self._cut_evaluation(step)

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Report a full disk or a missing permission in the block as an error in writing `path`.

        Raises:
            UserError: the block raised an error of the file system or of safetensors.
        """
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} could not be written ({error}): what was there before is intact; make room, and the same "
                "command goes on from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Free the lock."""
        self._lock.close()

    def discard(self) -> None:
        """Remove the run, if this writer has begun it: call it if the run failed before its first step.

        Other files stay, and so does a folder that was there before.
        """
        if not self._is_new:
            return
        with suppress(OSError):
            for name in _WRITTEN:
                remove(self.path / name)
            if self._made_folder:
                self.path.rmdir()  # fails if other files are there

    def _check_same(self, step: int | None, record: RunRecord) -> None:
        there = self.run.record
        began, is_now = (one.versions.get("deltaw") for one in (there, record))
        if began != is_now and step != self.config.trainer.max_steps:
            raise UserError(
                f"{self.path} was begun with deltaw {began}, and the steps of {is_now} may take other examples: finish "
                "it with that version, or give another run.name"
            )
        hashes = {
            "base": (there.base["sha256"], record.base["sha256"]),
            "data": (there.data["fingerprint"], record.data["fingerprint"]),
        }
        for part, (old, new) in hashes.items():
            if old != new:
                raise UserError(
                    f"{self.path} was begun with {part} {old[:12]} and now it is {new[:12]}: give another run.name, or "
                    "bring the old one back"
                )

    def _cut_metrics(self, step: int | None) -> None:
        lines = (self.path / METRICS).read_text().splitlines()[1:] if (self.path / METRICS).exists() else []
        kept = [line for line in lines if step is not None and int(line.split(",")[0]) <= step]
        _write(self.path / METRICS, "".join(f"{line}\n" for line in ["step,arm,name,value", *kept]))

    def _cut_evaluation(self, step: int | None) -> None:
        if step is None:
            (self.path / EVALUATION).unlink(missing_ok=True)
            return
        table = self.run.evaluation()
        _write_table(self.path / EVALUATION, table[table.step <= step])

    def append_metrics(self, step: int, rows: Iterable[tuple[str, str, float]]) -> None:
        """Append rows of (arm, name, value), measured at `step`; the arm is "" where a value concerns all arms."""
        with self.writing(self.path / METRICS), (self.path / METRICS).open("a") as file:
            file.write("".join(f"{step},{arm},{name},{value!r}\n" for arm, name, value in rows))

    def append_evaluation(self, table: pd.DataFrame) -> None:
        """Append what was measured on each example: the columns of `COLUMNS_OF_EVALUATION`."""
        with self.writing(self.path / EVALUATION):
            _write_table(self.path / EVALUATION, pd.concat([self.run.evaluation(), table]))

    def write_snapshot(
        self,
        arm: str,
        step: int,
        tensors: dict[str, Tensor],
        config: dict[str, object],
        metadata: dict[str, str],
    ) -> None:
        """Write the factors of `arm` at `step` in PEFT's format. A snapshot of step 0 is never replaced.

        Args:
            arm: the arm's name.
            step: optimiser steps that the arm has taken.
            tensors: the factors by their names in PEFT's format.
            config: content of `adapter_config.json`.
            metadata: strings for the header of the weights' file.
        """
        folder = self.run.snapshot(arm, step)
        if step == 0 and folder.exists():
            return
        with self.writing(folder), replacing(folder) as new:
            write_adapter(new, tensors, config, metadata)


def write_adapter(
    folder: Path, tensors: dict[str, Tensor], config: Mapping[str, object], metadata: Mapping[str, str]
) -> None:
    """Write a new folder in PEFT's format.

    Args:
        folder: does not exist.
        tensors: the factors by their names in PEFT's format.
        config: content of `adapter_config.json`.
        metadata: strings for the header of the weights' file.
    """
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **metadata})
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors keeps all but the owner from reading


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as new:
        table.to_parquet(new, index=False)


def _write(path: Path, text: str) -> None:
    with replacing(path) as new:
        new.write_text(text)


def _step_of(checkpoint: Path) -> int:
    try:
        step: int = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["global_step"]
    except Exception as error:  # a checkpoint cut short fails in many ways
        raise UserError(f"{checkpoint} cannot be read ({error}): delete it to start the run again") from error
    return step


def _differences(there: DictConfig, here: DictConfig) -> list[str]:
    """The settings that make `here` another run than `there`, in words."""
    return [
        f"{key} is {old} there and {new} here{_REASONS.get(key, '')}"
        for key, (old, new) in differences(there, here).items()
    ]
