"""Settings that no run can have, refused before anything is loaded."""

import os
import re
from collections.abc import Iterable

from omegaconf import DictConfig, ListConfig, OmegaConf

from deltaw.config.keys import keys_of
from deltaw.config.schema import NAME, NF4, TrainConfig, names_in
from deltaw.errors import UserError, shorten

PATHS = ("run.dir", "model.path", "data.path", "data.validation_path", "data.cache")  # of train
LONGEST = 255  # bytes of a name that a file system takes


def check(cfg: DictConfig) -> None:
    """Refuse values that no run can have.

    Raises:
        UserError: a value is outside the limit that the schema gives its key, or two settings exclude each other.
    """
    check_each_key(cfg, TrainConfig)
    _check_names(cfg)
    check_paths(cfg, PATHS)
    _check_task(cfg)
    _check_four_bits(cfg)


def check_paths(cfg: DictConfig, names: Iterable[str]) -> None:
    """Refuse paths that no file system takes, and empty ones, which would be the current folder.

    Args:
        names: of keys with a path or a list of paths.

    Raises:
        UserError: a path or a list is empty, or a part of a path is longer than 255 bytes.
    """
    for name in names:
        given = OmegaConf.select(cfg, name)
        paths = names_in(given)
        if given is not None and not (paths and all(path.strip() for path in paths)):
            raise UserError(f"{name}= is empty: leave it out, or give a value")
        for path in paths:
            if any(len(os.fsencode(part)) > LONGEST for part in path.split("/")):
                raise UserError(f"{name}={shorten(path)} has a name longer than {LONGEST} bytes: give a shorter path")


def check_each_key(cfg: DictConfig, schema: type) -> None:
    """Refuse values outside the limit that a schema gives their key.

    Raises:
        UserError: there is such a value.
    """
    for name, key in keys_of(schema):
        value = OmegaConf.select(cfg, name) if key.limit else None
        for number in value if isinstance(value, ListConfig) else [value]:
            if key.limit and number is not None and not key.limit.holds(number):
                raise UserError(f"{name}={number}: give {key.limit.words} ({key.text})")


def _check_names(cfg: DictConfig) -> None:
    if not names_in(cfg.arms.projections):
        raise UserError(f"arms.projections={cfg.arms.projections} adapts nothing: name at least one, as [q,v]")
    if not cfg.data.path and "path" in cfg.data.source:
        raise UserError(f"data={cfg.data.name} needs a text to learn: give data.path=FILE")
    if cfg.data.path and "path" not in cfg.data.source:
        raise UserError(f"data={cfg.data.name} does not read data.path={cfg.data.path}: add data=jsonl or data=hub")
    if cfg.run.name and not re.fullmatch(NAME, cfg.run.name):
        raise UserError(
            f"run.name={shorten(cfg.run.name)} names a directory: use 1 to 200 letters, digits, '.', '_' and '-', "
            "and no '.' at the start"
        )


def _check_task(cfg: DictConfig) -> None:
    if cfg.data.packing and cfg.task != "causal":
        raise UserError(
            f"data.packing=true puts several examples into one row, and task={cfg.task} needs one example per row: "
            "give data.packing=false"
        )
    if cfg.model.labels is not None and cfg.task != "classification":
        raise UserError(f"model.labels={cfg.model.labels} needs task=classification, not task={cfg.task}: leave it out")


def _check_four_bits(cfg: DictConfig) -> None:
    if cfg.model.dtype == NF4 and cfg.trainer.precision == "64-true":
        raise UserError("trainer.precision=64-true and model.dtype=nf4, which computes in bfloat16: give 32-true")
    if cfg.model.dtype == NF4 and cfg.engine == "fsdp":
        raise UserError("engine=fsdp cannot split packed weights, and model.dtype=nf4 packs them: give engine=ddp")
