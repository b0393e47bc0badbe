"""`benchmarks/ship_level.py` on a run made by hand."""

from pathlib import Path

import numpy as np
import pytest
import ship_level

from deltaw.advice.judged import judged_of, judged_rows
from tests.support.judged import Examples, Measured, write_judged


def test_false_ships_are_as_rare_as_the_test_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = Examples(count=300)
    uncut = examples.arm(2.0)
    cuts = {cut: examples.arm(-0.1 / cut, 0.1, of=uncut) for cut in (4, 2)}
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(uncut, cuts=cuts)}, groups=np.arange(300) // 2)
    assert ship_level.main(run.path, draws=120) in (0, 1)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 4 ", "| 2 "))]
    rates = [float(cell.strip(" %")) for row in rows for cell in row.split("|")[2:-1]]
    assert len(rates) == 6 and np.mean(rates) == pytest.approx(5, abs=2.5)

    judged = judged_of([run], [judged_rows(run)])
    arm = ship_level.recentred(judged, judged.arms[0], 2)
    means = {
        cut: judged.ratios(losses - arm.uncut - 0.01 * (arm.base - arm.uncut)).means[0]
        for cut, losses in arm.cuts.items()
    }
    assert means == pytest.approx({4: -2, 2: 0}, abs=0.05)
