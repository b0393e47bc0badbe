"""The name that a run gets where the user gives none, and names that are short enough for a file system."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

LONGEST = 200  # characters of a name: a file system's names end at 255 bytes
LONGEST_ARMS = 150  # characters for the arms in it


def default_name(cfg: DictConfig, arms: Sequence[str]) -> str:
    """`<model>-<data>-<arms><run.suffix>`: what sets a run apart, and no clock time.

    Args:
        cfg: the config of the run.
        arms: their names; if they are too long together, their number and a hash take their place. A hash also ends a
            name that is too long for other reasons.
    """
    data = name_of_data(cfg)
    data = f"{data}-{cfg.data.config}" if cfg.data.config else data
    names = "_".join(arms)
    if len(names) > LONGEST_ARMS:
        names = f"{len(arms)}arms-{digits(names)}"
    whole = f"{Path(cfg.model.path).name}-{data}-{names}{cfg.run.suffix}"
    return shortened(re.sub(r"[^A-Za-z0-9._-]", "-", whole).lstrip("."), whole)


def shortened(name: str, whole: str) -> str:
    """The name; one of more than `LONGEST` characters is cut, and ends in the digits of `whole`, what it stands for."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{digits(whole)}"


def digits(text: str) -> str:
    """Eight hexadecimal digits that tell a text from others: the beginning of its SHA-256."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def name_of_data(cfg: DictConfig) -> str:
    """The name of the file or folder of the data, without its suffix; the data set's own name where there is none."""
    return Path(cfg.data.path).stem if cfg.data.path else str(cfg.data.name)
