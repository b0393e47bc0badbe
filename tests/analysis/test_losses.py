"""The losses of a run, with standard errors where its validations recorded every example."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deltaw.analysis.losses import losses_of
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_evaluation, write_run

LABELS = [2, 3, 5, 10]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Two arms; the losses of each example vary much, and all fall by about an eighth."""
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0"))
    start, end = [2.0, 9.0, 30.0, 39.0], [1.8, 7.9, 26.5, 33.8]
    steps = {0: start, 10: end, 20: [0.0] * 4}
    write_evaluation(run.path, {("r2-s0", step): losses for step, losses in steps.items()}, LABELS)
    return run


def test_errors_are_those_of_the_ratio_with_the_example_as_unit(run: RunDirectory) -> None:
    losses = losses_of([run.adapter("r2-s0")]).set_index("arm").loc["r2-s0"]
    assert losses.gain == losses.start - losses.end == 0.5
    labels = np.array(LABELS)
    for name, totals in (("end_se", [1.8, 7.9, 26.5, 33.8]), ("gain_se", [0.2, 1.1, 3.5, 5.2])):
        residuals = np.array(totals) - sum(totals) / 20 * labels
        assert losses[name] == pytest.approx(np.sqrt(4 / 3 * (residuals**2).sum()) / 20)
    assert losses.gain_se < losses.end_se / 3  # what the examples have in common cancels


def test_the_error_is_that_of_the_step_that_is_compared(run: RunDirectory) -> None:
    start = losses_of([run.adapter("r2-s0", step=0)]).set_index("arm").loc["r2-s0"]
    assert start.end_se > losses_of([run.adapter("r2-s0")]).end_se[0]
    assert (start.gain, start.gain_se) == (0, 0)


def test_errors_that_are_not_recorded_are_nan(run: RunDirectory) -> None:
    losses = losses_of([run.adapter("r2-s0")])
    assert losses.set_index("arm")[["end_se", "gain_se"]].isna().all(axis=1).to_dict() == {
        "r2-s0": False,
        "r4-s0": True,
    }
    (run.path / "evaluation.parquet").unlink()  # a run of an older version
    assert losses_of([run.adapter("r2-s0")])[["end_se", "gain_se"]].isna().all(axis=None)


def test_a_control_has_a_share_of_the_gain_of_the_arm_with_its_alpha(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r4-s0", "r4-s0-a32", "r4-s0-a32-shuffled", "r4-s1-a32"))
    losses = losses_of([run.adapter("r4-s0")])
    assert losses.share.dropna().tolist() == [pytest.approx((0.5 / 3) / 0.25)]


def test_runs_of_another_alpha_have_another_variant(tmp_path: Path) -> None:
    runs = [RunDirectory(write_run(tmp_path / name, "r4-s0")) for name in ("one", "two")]
    record = json.loads((tmp_path / "two/run.json").read_text())
    record["arms"][0]["alpha"] = 32.0
    (tmp_path / "two/run.json").write_text(json.dumps(record))
    assert losses_of([run.adapter("r4-s0") for run in runs]).variant.tolist() == ["a16-alpha/r", "a32-alpha/r"]


def test_losses_end_at_the_step_that_is_compared(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0"))
    left, right = run.adapter("r2-s0", step=0), run.adapter("r4-s0", step=0)
    assert losses_of([left, right]).end.tolist() == [4, 4]


def test_errors_are_over_groups_of_validation_examples(run: RunDirectory) -> None:
    table = run.evaluation()
    each = losses_of([run.adapter("r2-s0")]).set_index("arm").loc["r2-s0"]
    judged = table.assign(split="judged", loss=100.0)
    pd.concat([table.assign(group=table.example // 2), judged]).to_parquet(run.path / "evaluation.parquet")
    grouped = losses_of([run.adapter("r2-s0")]).set_index("arm").loc["r2-s0"]
    assert grouped.end == each.end and grouped.gain == each.gain
    residuals = np.array([1.8, 7.9, 26.5, 33.8]) - 3.5 * np.array(LABELS)
    assert grouped.end_se == pytest.approx(np.sqrt(2 * (residuals.reshape(2, 2).sum(axis=1) ** 2).sum()) / 20)
    assert grouped.end_se != pytest.approx(each.end_se)
