"""The chart of losses against rank, and the sentence in its place."""

import json
from pathlib import Path

import numpy as np
import pytest

from deltaw.analysis.losses import losses_of
from deltaw.report.page.losses import loss_against_rank
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_run


def chart(run: RunDirectory, *others: RunDirectory) -> dict[str, object] | str:
    """Of runs without judged losses."""
    runs = [run, *others]
    adapters = [one.adapter(name) for one in runs for name in one.arms if one.steps(name)]
    return loss_against_rank(runs, losses_of(adapters), None)


def test_without_judged_losses_it_shows_those_of_the_last_validation(tmp_path: Path) -> None:
    arms = ["r2-s0", "r2-s1", "r4-s0", "r4-s0-shuffled", "r4-s1-shuffled", "r2-s0-shuffled"]
    found = chart(RunDirectory(write_run(tmp_path / "x", *arms)))
    assert isinstance(found, dict) and found["axis"] == "validation loss, nats a token"
    ends = 4 - 0.5 / np.arange(1, 7)  # as `write_run` has them
    points = [
        {"rank": 2, "loss": ends[:2].mean(), "low": ends[0], "high": ends[1]},
        {"rank": 4, "loss": ends[2], "low": ends[2], "high": ends[2]},
    ]
    assert found["series"] == [
        {"name": "trained", "points": [pytest.approx(point) for point in points], "trained": True}
    ]
    assert found["caption"] == "Bars of trained arms span the seeds of a rank."
    shuffled = {"name": "control shuffled, r=4", "loss": pytest.approx(ends[3:5].mean())}
    assert found["lines"] == [{"name": "base", "loss": 4}, shuffled]


def test_a_learning_rate_has_a_series_of_its_own(tmp_path: Path) -> None:
    found = chart(RunDirectory(write_run(tmp_path / "x", "r2-s0", "r4-s0-lr0.01")))
    assert isinstance(found, dict)
    assert [one["name"] for one in found["series"]] == ["trained, learning rate 0.002", "trained, learning rate 0.01"]  # type: ignore[attr-defined]


def test_two_experiments_share_no_chart(tmp_path: Path) -> None:
    runs = [RunDirectory(write_run(tmp_path / name, "r2-s0")) for name in ("calls", "numbers")]
    record = json.loads((runs[1].path / "run.json").read_text())
    (runs[1].path / "run.json").write_text(json.dumps(record | {"data": {"fingerprint": "of other data"}}))
    words = "calls and numbers are not one experiment, so their losses share no chart."
    assert str(chart(runs[0], RunDirectory(runs[1].path))).startswith(words)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ("train/loss,1.5", "No losses are known: x recorded no validation."),
        ("val/loss,nan", "No loss is finite: r2-s0 and r4-s0 diverged."),
    ],
)
def test_a_run_without_losses_is_told_from_one_that_diverged(tmp_path: Path, losses: str, words: str) -> None:
    run = write_run(tmp_path / "x", "r2-s0", "r4-s0")
    rows = [f"{step},{arm},{losses}" for step in (0, 10) for arm in ("r2-s0", "r4-s0")]
    (run / "metrics.csv").write_text("\n".join(["step,arm,name,value", *rows]) + "\n")
    assert chart(RunDirectory(run)) == words


def test_adapters_of_no_run_have_none() -> None:
    assert loss_against_rank([], losses_of([]), None) == "No losses of these adapters are known: they belong to no run."
