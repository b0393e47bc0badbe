"""The name that a run gets where the user gives none."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

LONGEST = 150  # characters for the arms: a file system's names end at 255 bytes


def default_name(cfg: DictConfig, arms: Sequence[str]) -> str:
    """`<model>-<data>-<arms><run.suffix>`: what sets a run apart, and no clock time.

    Args:
        cfg: the config of the run.
        arms: their names; if they are too long together, their number and a hash take their place.
    """
    data = Path(cfg.data.path).stem if cfg.data.path else cfg.data.name
    data = f"{data}-{cfg.data.config}" if cfg.data.config else data
    names = "_".join(arms)
    if len(names) > LONGEST:
        names = f"{len(arms)}arms-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{Path(cfg.model.path).name}-{data}-{names}{cfg.run.suffix}")
