"""Files of a run that something else has changed: read, or refused by name."""

from math import nan
from pathlib import Path

import pandas as pd
import pytest

from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory, load_config
from deltaw.run.metrics import COLUMNS_OF_EVALUATION, COLUMNS_OF_METRICS
from tests.support.folders import write_run

HEAD = "step,arm,name,value\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"step,arm,name\n1,a,val/loss\n",
        HEAD.encode() + b"x,a,val/loss,1\n",
        HEAD.encode() + b"1.5,a,val/loss,1\n",
        HEAD.encode() + b"1e300,a,val/loss,1\n",
        HEAD.encode() + b"99999999999999999999,a,val/loss,1\n",
        HEAD.encode() + b"1,a,val/loss,low\n",
        HEAD.encode() + b"1,\xff,val/loss,1\n",
    ],
)
def test_metrics_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read .*: delete it to go on without losses"):
        RunDirectory(tmp_path).metrics()


def test_metrics_hold_no_rows_where_nothing_was_recorded_and_nan_where_a_line_is_not_complete(tmp_path: Path) -> None:
    assert list(RunDirectory(tmp_path).metrics()) == list(COLUMNS_OF_METRICS)
    (tmp_path / "metrics.csv").write_text(HEAD + "1,,tokens_per_s,7\n1,a,val/loss,nan\n2,a")
    metrics = RunDirectory(tmp_path).metrics()
    assert metrics.step.tolist() == [1, 1, 2] and metrics.value.isna().tolist() == [False, True, True]


def evaluation() -> pd.DataFrame:
    """Two examples after two steps."""
    table = pd.DataFrame(
        {"arm": "a", "step": [0, 0, 1, 1], "example": [0, 1, 0, 1], "loss": 1.0, "labels": 2, "right": 0}
    )
    table = table.assign(
        split="validation", cut=pd.array([None, None, None, 2], "Int64"), dropped="", group=[5, 6, 5, 6]
    )
    return table[list(COLUMNS_OF_EVALUATION)].astype(COLUMNS_OF_EVALUATION)


@pytest.mark.parametrize(
    "table",
    [
        evaluation().drop(columns="step"),
        evaluation().assign(step="first"),
        evaluation().assign(loss="low"),
        evaluation().assign(labels=[1, 2, nan, 3]),
        evaluation().assign(step=1e300),
    ],
)
def test_an_evaluation_with_other_columns_is_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    table.to_parquet(tmp_path / "evaluation.parquet")
    with pytest.raises(UserError, match=r"evaluation\.parquet cannot be read .*: delete it; the command"):
        RunDirectory(tmp_path).evaluation()


def test_a_broken_evaluation_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.parquet"
    evaluation().to_parquet(file)
    whole = file.read_bytes()
    pd.testing.assert_frame_equal(RunDirectory(tmp_path).evaluation(), evaluation())
    for content in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"evaluation\.parquet cannot be read"):
            RunDirectory(tmp_path).evaluation()


def test_an_evaluation_of_an_older_version_is_of_validation_with_a_group_for_each_example(tmp_path: Path) -> None:
    of_now = evaluation()
    of_now.drop(columns=["split", "cut", "dropped", "group"]).to_parquet(tmp_path / "evaluation.parquet")
    expected = of_now.assign(cut=pd.array([None] * 4, "Int64"), group=of_now.example)
    pd.testing.assert_frame_equal(RunDirectory(tmp_path).evaluation(), expected)


def test_the_recipe_of_a_rank_is_the_one_whose_seeds_validate_best(tmp_path: Path) -> None:
    names = [f"r8-s{seed}-lr{lr}" for lr in (0.1, 0.2, 0.3) for seed in (0, 1)]
    run = RunDirectory(write_run(tmp_path, *names, "r4-s0", "r8-s0-lr0.2-random", "r8-s0-lr0.2-shadow1"))
    losses = dict(zip(names, (2.0, 4.0, 2.5, 2.6, 1.0, nan), strict=True))
    rows = [f"10,{name},val/loss,{loss}\n" for name, loss in losses.items()]
    (tmp_path / "metrics.csv").write_text(HEAD + "".join(rows))
    assert [arm["name"] for arm in run.recipe(8)] == ["r8-s0-lr0.2", "r8-s1-lr0.2"]
    assert [arm["name"] for arm in run.recipe(4)] == ["r4-s0"] and run.recipe(16) == []
    (tmp_path / "metrics.csv").write_text(HEAD + "".join(row for row in rows if "-s1-" not in row))
    assert [arm["name"] for arm in run.recipe(8)] == names[4:]  # every other seed has diverged
    (tmp_path / "metrics.csv").write_text(HEAD)
    assert [arm["name"] for arm in run.recipe(8)] == names[:2]  # nothing tells them apart


@pytest.mark.parametrize(
    "content", ["a: [", "[1]", "[" * 2000, "&a [*a]", "{a: 1, a: 2}", "a: ${b}", "\0", "!!python/object:os.system x"]
)
def test_a_config_that_is_none_is_a_value_error_and_tells_no_steps(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert RunDirectory(tmp_path).max_steps is None
    with pytest.raises(ValueError, match=r"."):
        load_config(tmp_path / "config.yaml")
