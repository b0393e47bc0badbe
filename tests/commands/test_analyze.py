"""`analyze.py` as a user starts it: what it compares, and where it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from deltaw import compare
from deltaw.analysis.bases import BASES
from deltaw.analysis.output import replace_folder
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Origin
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run

SCRIPT = Path(__file__).parents[2] / "analyze.py"
FIGURES = [f"fig6{variant}.{kind}" for variant in ("-times-chance", "") for kind in ("pdf", "png")]
TABLES = ["excess.parquet", "losses.parquet", "pairs.parquet", "phi.parquet", "sites.parquet"]
FILES = [*FIGURES, *TABLES, "summary.json", "summary.md", "tables.json"]


def analyze(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *overrides], cwd=folder, capture_output=True, text=True)


def test_the_newest_run_is_analysed_into_itself(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "older"]):
        run = write_run(tmp_path / "runs" / name, "r8-s0", "r2-s0", "r8-s0-shuffled", "r4-s0")
        os.utime(run / "run.json", times=(1e9 - age, 1e9 - age))
    done = analyze(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    analysis = tmp_path / "runs" / "newest" / "analysis"
    assert sorted(path.name for path in analysis.iterdir()) == sorted(FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # Hydra writes nothing

    phi = pd.read_parquet(analysis / "phi.parquet")
    assert phi[["left", "right", "step_left", "step_right"]].drop_duplicates().values.tolist() == [
        ["r2-s0", "r8-s0", 10, 10]
    ]
    assert phi.groupby("basis", sort=False).size().to_dict() == dict.fromkeys(BASES, 8 * 2 * 8)
    tables = json.loads((analysis / "tables.json").read_text())
    assert (tables["left"]["name"], tables["right"]["name"]) == ("r2-s0", "r8-s0")
    assert [(pair["left"], pair["right"]) for pair in tables["pairs"]] == [
        ("r2-s0", "r8-s0"),
        ("r2-s0", "r8-s0-shuffled"),
    ]
    findings = json.loads((analysis / "summary.json").read_text())["findings"]
    pictures = ["runs/newest/analysis/fig6-times-chance.png", "runs/newest/analysis/fig6.png"]
    assert done.stdout.splitlines()[-2 - len(findings) :] == [*pictures, *findings]
    assert all(finding in (analysis / "summary.md").read_text() for finding in findings)


def three_tables(left: Adapter, right: Adapter) -> list[pd.DataFrame]:
    comparison = compare(left, right)
    return [comparison.phi, comparison.pairs, comparison.sites]


def test_two_runs_of_one_arm_give_the_tables_of_one_run_of_two(tmp_path: Path) -> None:
    write_run(tmp_path / "both", "r2-s0", "r4-s0")
    write_run(tmp_path / "low", "r2-s0")
    write_run(tmp_path / "high", "r4-s0")
    both = RunDirectory(tmp_path / "both")
    in_one_run = [both.adapter(name) for name in ("r2-s0", "r4-s0")]
    in_two_runs = [find_adapter(str(tmp_path / name), both, None) for name in ("low", "high")]
    for one, two in zip(three_tables(*in_one_run), three_tables(*in_two_runs), strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_adapter_folders_with_different_bases_give_one_warning(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", rank=2)
    write_adapter(tmp_path / "b", rank=4, base_model_name_or_path="other")
    done = analyze(tmp_path, "left=a", "right=b", "output=here", "exhibits=[]")
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1 and "'other'" in done.stderr
    assert "- a names the base 'tiny', b names 'other'" in (tmp_path / "here" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lefft=a"], "lefft"),
        (["layers=[9]"], "layers=[9]"),
        (["basis=B"], "basis=B"),
        (["exhibits=[fig9]"], "fig9"),
        (["exhibits=[fig4]"], "arms.seeds=[0,1]"),
        (["exhibits=[fig8]"], "'tiny' is no folder here: give base="),
        (["projections=[k]"], "the adapters have ['q', 'v']"),
        (["device=tpu"], "device=tpu"),
        (["left_start=run/snapshots/r2-s0/step-00000000"], "only an adapter folder needs one"),
    ],
)
def test_an_error_ends_in_one_line_and_leaves_the_old_analysis(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r4-s0")
    (run / "analysis").mkdir()
    (run / "analysis" / "tables.json").write_text("old")
    done = analyze(tmp_path, "run=run", *overrides)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    (last,) = done.stderr.strip().splitlines()
    assert last.startswith("error: ") and message in last
    assert [path.read_text() for path in (run / "analysis").iterdir()] == ["old"]
    assert sorted(path.name for path in run.iterdir()) == ["analysis", "metrics.csv", "run.json", "snapshots"]


def test_analysis_needs_none_of_the_training_stack() -> None:
    code = "import sys, analyze, deltaw.commands.analyze; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True)
    assert not {"lightning", "pytorch_lightning", "peft", "transformers"} & set(done.stdout.split())


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(write_run(tmp_path / "run", "r4-s0", "r2-s0", "r8-s0-shuffled"))


def test_the_default_pair_is_the_smallest_and_the_largest_rank_without_controls(run: RunDirectory) -> None:
    assert default_pair(run, None, None) == ("r2-s0", "r4-s0")
    assert default_pair(run, "r4-s0", None) == ("r4-s0", "r2-s0")
    assert default_pair(run, None, "r2-s0") == ("r4-s0", "r2-s0")
    assert default_pair(None, "a", "b") == ("a", "b")


def test_one_arm_is_no_pair(tmp_path: Path) -> None:
    single = RunDirectory(write_run(tmp_path / "single", "r2-s0"))
    with pytest.raises(UserError, match=r"\['r2-s0'\]"):
        default_pair(single, None, None)
    with pytest.raises(UserError, match="no run"):
        default_pair(None, None, "r2-s0")


def test_a_name_is_an_arm_a_run_of_one_arm_or_a_folder(tmp_path: Path, run: RunDirectory) -> None:
    write_run(tmp_path / "single", "r8-s0")
    assert find_adapter("r2-s0", run, None).folder == run.snapshot("r2-s0", 10)
    assert find_adapter("r2-s0", run, 0).folder == run.snapshot("r2-s0", 0)
    assert find_adapter(str(tmp_path / "single"), run, None).name == "r8-s0"
    assert find_adapter(str(write_adapter(tmp_path / "folder", rank=3)), None, None).origin is None


def test_a_step_follows_its_arm_or_run(tmp_path: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "single", "r8-s0")
    assert find_adapter("r2-s0@0", run, None).folder == run.snapshot("r2-s0", 0)
    assert find_adapter("r2-s0@10", run, 0).folder == run.snapshot("r2-s0", 10)
    assert find_adapter("single@0", run, None).origin == Origin(Path("single"), "r8-s0", 0, "a" * 64)
    start = find_adapter("r2-s0", run, None).start
    assert start is not None and start.folder == run.snapshot("r2-s0", 0)


def test_two_steps_of_an_arm_are_two_adapters(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "r2-s0", "r4-s0")
    done = analyze(tmp_path, "run=run", "left=r4-s0@0", "right=r4-s0@10", "basis=A", "exhibits=[]")
    assert done.returncode == 0, done.stderr
    pairs = pd.read_parquet(tmp_path / "run" / "analysis" / "pairs.parquet")
    assert set(zip(pairs.left, pairs.right, pairs.step_left, pairs.step_right, strict=True)) == {
        ("r4-s0@0", "r4-s0@10", 0, 10)
    }


def test_the_message_says_what_a_name_cannot_mean(
    tmp_path: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_adapter(tmp_path / "r2-s0", rank=2)
    for name, step, message in [
        ("r2-s0", None, "r2-s0 is an arm and an adapter folder"),
        ("r3-s0", None, "r3-s0 is not an arm of"),
        ("r4-s0", 7, r"after the steps \[0, 10\]: step=7"),
        (str(run.path), None, r"has the arms \['r4-s0', "),
    ]:
        with pytest.raises(UserError, match=message):
            find_adapter(name, run, step)


@pytest.mark.parametrize("record", ["", "[]", '{"arms": []}'])
def test_a_broken_record_is_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(UserError, match=r"run\.json"):
        _ = RunDirectory(tmp_path).record


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        with replace_folder(tmp_path / "analysis") as folder:
            (folder / "tables.json").write_text(attempt)
            (folder / attempt).touch()
    with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "analysis") as folder:
        (folder / "tables.json").write_text("third")
        raise ZeroDivisionError
    assert (tmp_path / "analysis" / "tables.json").read_text() == "second"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["analysis", "second", "tables.json"]


def test_a_folder_that_is_no_analysis_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for output in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="output="), replace_folder(output):
            pass
    assert (tmp_path / "thesis.tex").exists()
