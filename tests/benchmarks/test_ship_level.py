"""`benchmarks/ship_level.py` on a run made by hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import ship_level

from deltaw.advice.judged import judged_of, judged_rows
from tests.support.judged import Examples, Measured, write_judged


def test_false_ships_are_as_rare_as_the_test_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Examples(count=300)
    uncut = examples.arm(2.0)
    cuts = {cut: examples.arm(-0.1 / cut, 0.1, of=uncut) for cut in (4, 2)}
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(uncut, cuts=cuts)}, groups=np.arange(300) // 2)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["ship_level", str(run.path), "--draws=120", f"--out={out}"])
    failed, found = ship_level.main(), json.loads(out.read_text(encoding="utf-8"))
    rates = np.array([row["rates"] for row in found["results"]])
    assert rates.shape == (2, 3) and rates.mean() == pytest.approx(0.05, abs=0.025)
    assert failed == (rates.max() > 0.07) and f"The highest rate is {100 * rates.max():.1f} %" in ship_level.table(
        found
    )

    judged = judged_of([run], [judged_rows(run)])
    arm = ship_level.recentred(judged, judged.arms[0], 2)
    means = {
        cut: judged.ratios(losses - arm.uncut - 0.01 * (arm.base - arm.uncut)).means[0]
        for cut, losses in arm.cuts.items()
    }
    assert means == pytest.approx({4: -2, 2: 0}, abs=0.05)
