"""`benchmarks/gpu.py --toy`: every part runs on a CPU, so that a GPU's few minutes are not spent on mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny import ROOT

pytestmark = pytest.mark.slow


def test_every_part_runs_at_toy_size(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), str(tmp_path), "--toy"]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    parts = {f"{part}.json" for part in ("gpu", "tests", "plan", "speed", "company", "profile", "compile", "deep96")}
    assert files.keys() == parts | {"deep96.zip", "log.txt"} and max(files.values()) < 2**24
