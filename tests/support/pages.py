"""A run with losses, cuts, shadows and several snapshots, and the page that its analysis writes."""

import json
import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from deltaw.commands.analyze import analyse
from deltaw.config.folder import CONF
from deltaw.config.schema import register
from tests.support.folders import write_adapter
from tests.support.judged import Examples, Measured, write_judged

RANKS = (2, 4)
LAYERS = 3


def write_learned(path: Path) -> Path:
    """A run of ranks 2 and 4 with a shadow each, snapshots after steps 0, 5 and 10, and cuts of the larger arm."""
    examples = Examples(count=60)
    low, high = examples.arm(1.0), examples.arm(1.2)
    arms = {"r2-s0": Measured(low), "r4-s0": Measured(high, 0.9, {2: examples.arm(-0.01, of=high), 1: low})}
    shadows = {f"{name}-shadow1": Measured(examples.base, 4.0) for name in arms}
    write_judged(path, examples, arms | shadows)
    for number, name in enumerate([*arms, *shadows]):
        rank = int(name[1])
        for step in (0, 5, 10):
            folder = path / "snapshots" / name / f"step-{step:08d}"
            if folder.is_dir():
                folder.rmdir()
            write_adapter(folder, rank, LAYERS, seed=100 * number + step, B=step / 10)
    return path


def analysed(output: Path, *overrides: str) -> Path:
    """The folder of an analysis with these settings."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        analyse(compose("analyze", [f"output={output}", *overrides]))
    return output


def data_of(page: str) -> dict[str, Any]:
    """The data in the page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data
