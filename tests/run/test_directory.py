"""Files of a run that something else has changed: read, or refused by name."""

from math import nan
from pathlib import Path

import pandas as pd
import pytest

from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory, load_config
from deltaw.run.metrics import COLUMNS_OF_EVALUATION, COLUMNS_OF_METRICS

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
    return pd.DataFrame(
        {"arm": "a", "step": [0, 0, 1, 1], "example": [0, 1, 0, 1], "loss": 1.0, "labels": 2, "right": 0}
    ).astype(COLUMNS_OF_EVALUATION)


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
    with pytest.raises(UserError, match=r"evaluation\.parquet cannot be read .*: delete it to go on"):
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


@pytest.mark.parametrize(
    "content", ["a: [", "[1]", "[" * 2000, "&a [*a]", "{a: 1, a: 2}", "a: ${b}", "\0", "!!python/object:os.system x"]
)
def test_a_config_that_is_none_is_a_value_error_and_tells_no_steps(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert RunDirectory(tmp_path).max_steps is None
    with pytest.raises(ValueError, match=r"."):
        load_config(tmp_path / "config.yaml")
