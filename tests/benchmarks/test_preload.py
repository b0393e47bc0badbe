"""The parts of `gpu.py` start without deltaw, whose tests have to be the first to import it."""

import subprocess
import sys

from tests.support.tiny import ROOT


def test_the_command_loads_no_deltaw_before_its_parts() -> None:
    code = "import sys, gpu; assert not [name for name in sys.modules if name.partition('.')[0] == 'deltaw']"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", check=True)
