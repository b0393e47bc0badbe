"""`analyze.py` as a user starts it: what it compares, and where it writes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from deltaw import compare
from deltaw.analysis.bases import BASES
from deltaw.analysis.output import replace_files
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.commands.analyze import analyse
from deltaw.config.folder import CONF
from deltaw.config.schema import register
from deltaw.errors import UserError
from deltaw.exhibit.picture import Picture
from deltaw.run.adapter import Adapter, Origin
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run

register()
SCRIPT = Path(__file__).parents[2] / "analyze.py"
FIGURES = [f"fig6{variant}.{kind}" for variant in ("-times-chance", "") for kind in ("pdf", "png")]
TABLES = ["excess.parquet", "losses.parquet", "pairs.parquet", "phi.parquet", "sites.parquet"]
FILES = [*FIGURES, *TABLES, "summary.json", "summary.md", "tables.json"]


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("analyze", list(overrides))


def analyze(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *overrides], cwd=folder, capture_output=True, text=True)


def test_the_newest_run_is_analysed_into_itself(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "older"]):
        run = write_run(tmp_path / "runs" / name, "r8-s0", "r4-s0", "r8-s0-shuffled", "r1-s0")
        os.utime(run / "run.json", times=(1e9 - age, 1e9 - age))
    done = analyze(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    analysis = tmp_path / "runs" / "newest" / "analysis"
    assert sorted(path.name for path in analysis.iterdir()) == sorted(FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # Hydra writes nothing

    phi = pd.read_parquet(analysis / "phi.parquet")
    assert phi[["left", "right", "step_left", "step_right"]].drop_duplicates().values.tolist() == [
        ["r4-s0", "r8-s0", 10, 10]
    ]
    assert phi.groupby("basis", sort=False).size().to_dict() == dict.fromkeys(BASES, 8 * 4 * 8)
    tables = json.loads((analysis / "tables.json").read_text())
    assert (tables["left"]["name"], tables["right"]["name"]) == ("r4-s0", "r8-s0")
    assert [(pair["left"], pair["right"]) for pair in tables["pairs"]] == [
        ("r4-s0", "r8-s0"),
        ("r4-s0", "r8-s0-shuffled"),
    ]
    findings = json.loads((analysis / "summary.json").read_text())["findings"]
    assert "comparing r4-s0 with r8-s0 of runs/newest after step 10 at 8 sites" in done.stdout.splitlines()
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
    assert (done.returncode, done.stderr) == (0, "")
    (warning,) = [line for line in done.stdout.splitlines() if "'other'" in line]
    assert f"- {warning}" in (tmp_path / "here" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lefft=a"], "lefft"),
        (["layers=[9]"], "layers=[9]"),
        (["basis=B"], "basis=B"),
        (["exhibits=figg6"], "exhibits=figg6: did you mean fig6?"),
        (["exhibits=fig6,fig9"], "exhibits=fig9"),
        (["exhibits=[fig4]"], "arms.seeds=[0,1]"),
        (["exhibits=[fig8]"], "'tiny' is no folder here: give base="),
        (["projections=[k]"], "the adapters have ['q', 'v']"),
        (["device=tpu"], "device=tpu"),
        (["left=" + "a" * 300], "has a name longer than 255 bytes"),
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


@pytest.mark.parametrize(
    ("ranks", "right", "pair"),
    [
        ([1, 2, 4, 8, 16], None, (4, 16)),
        ([1, 2, 8], None, (1, 8)),
        ([1, 2], None, (1, 2)),
        ([16, 8], None, (8, 16)),
        ([1, 2, 4, 8, 16], 8, (4, 8)),
        ([1, 2, 4, 8, 16], 4, (1, 4)),
    ],
)
def test_the_default_left_arm_has_at_least_rank_4_and_less_than_right(
    tmp_path: Path, ranks: list[int], right: int | None, pair: tuple[int, int]
) -> None:
    run = RunDirectory(write_run(tmp_path / "run", *(f"r{rank}-s{seed}" for rank in ranks for seed in (0, 1))))
    assert default_pair(run, None, f"r{right}-s0" if right else None) == (f"r{pair[0]}-s0", f"r{pair[1]}-s0")


def test_two_seeds_of_one_rank_are_a_pair(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r8-s0", "r8-s1"))
    assert default_pair(run, None, None) == ("r8-s0", "r8-s1")


def test_a_folder_alone_is_not_paired_with_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "x", "r2-s0", "r4-s0")
    write_adapter(tmp_path / "mine", rank=2)
    with pytest.raises(UserError, match="right=mine is alone: give left= as well"):
        analyse(config("right=mine", "exhibits=[]"))
    analyse(config("right=mine", "run=runs/x", "exhibits=[]"))
    assert [path.name for path in (tmp_path / "runs" / "x").glob("analysis*")] == ["analysis-r4-s0-mine"]


def test_a_run_that_stopped_before_its_first_snapshot_is_compared_on_request_alone(run: RunDirectory) -> None:
    for snapshot in run.path.glob("snapshots/*/step-00000010"):
        shutil.rmtree(snapshot)
    with pytest.raises(UserError, match=r"only the snapshots before the first step.*step=0"):
        find_adapter("r2-s0", run, None)
    assert find_adapter("r2-s0", run, 0).origin == Origin(run.path, "r2-s0", 0, "a" * 64)


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
    analyse(config(f"run={tmp_path / 'run'}", "left=r4-s0@0", "right=r4-s0@10", "basis=A", "exhibits=[]"))
    pairs = pd.read_parquet(tmp_path / "run" / "analysis-r4-s0@0-r4-s0-A" / "pairs.parquet")
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


def test_another_pair_step_or_basis_goes_into_a_folder_beside(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r8-s0", "r8-s1")
    for settings in (["left=r8-s0", "right=r8-s1"], ["step=0", "basis=A"], ["basis=update"], ["step=10"]):
        analyse(config(f"run={run}", "exhibits=[]", *settings))
    assert sorted(path.name for path in run.glob("analysis*")) == [
        *("analysis", "analysis-r8-s0-r8-s1", "analysis-step-0-A", "analysis-update")
    ]


def test_the_first_pair_of_folders_has_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["one/r2", "one/r4", "other/r4"]):
        write_adapter(tmp_path / name, rank=2, seed=number)
    for right in ("one/r4", "other/r4", "one/r4"):
        analyse(config("left=one/r2", f"right={right}", "exhibits=[]"))
    assert sorted(path.name for path in tmp_path.glob("analysis*")) == ["analysis", "analysis-one-r2-other-r4"]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have empty files in place of figures: drawing takes seconds."""

    @contextmanager
    def touching(pictures: list[Picture], folder: Path) -> Iterator[None]:
        for picture in pictures:
            (folder / f"{picture.name}.png").touch()
        yield

    monkeypatch.setattr("deltaw.commands.analyze.drawing", touching)


@pytest.mark.usefixtures("undrawn")
def test_an_analysis_leaves_the_users_files_and_makes_earlier_exhibits_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r8-s0")
    analyse(config(f"run={run}", "exhibits=[fig3,table6]"))
    folder = run / "analysis"
    (folder / "notes.md").write_text("mine")
    (folder / "drafts").mkdir()
    (folder / "drafts" / "fig3.png").write_text("mine")
    analyse(config(f"run={run}", "exhibits=[fig6]", "layers=[2]"))
    figures = {path.stem for path in folder.glob("*.png")}
    assert figures == {"fig3", "fig3-times-chance", "fig6", "fig6-times-chance", "table6"}
    assert json.loads((folder / "tables.json").read_text())["exhibits"] == ["fig6", "fig3", "table6"]
    assert [(folder / name).read_text() for name in ("notes.md", "drafts/fig3.png")] == ["mine", "mine"]


@pytest.mark.usefixtures("undrawn")
def test_figures_of_another_pair_go_with_its_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r8-s0", "r8-s1")
    analyse(config(f"run={run}", "exhibits=[fig3]", f"output={tmp_path / 'out'}"))
    analyse(config(f"run={run}", "right=r8-s1", "exhibits=[table6]", f"output={tmp_path / 'out'}"))
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["table6.png"]


def written(folder: Path, *names: str) -> None:
    """Have an analysis write files into `folder`, each with all the names in it."""
    with replace_files(folder, ["tables.json", *names]) as new:
        for name in names:
            (new / name).write_text(" ".join(names))
        (new / "tables.json").write_text(json.dumps({"files": ["tables.json", *names]}))


def test_the_files_of_an_analysis_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "analysis"
    written(folder, "a", "b")
    (folder / "notes.md").touch()
    written(folder, "b", "c")
    with pytest.raises(ZeroDivisionError), replace_files(folder, ["c", "d"]) as new:
        (new / "c").write_text("third")
        raise ZeroDivisionError
    assert (folder / "c").read_text() == "b c"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["analysis", "b", "c", "notes.md", "tables.json"]


def test_an_analysis_of_an_older_version_is_replaced_by_its_exhibits(tmp_path: Path) -> None:
    folder = tmp_path / "analysis"
    folder.mkdir()
    for name in ("fig3.png", "fig3-times-chance.pdf", "phi.parquet", "notes.md"):
        (folder / name).touch()
    (folder / "tables.json").write_text(json.dumps({"exhibits": ["fig3"]}))
    written(folder, "fig3.png", "fig6.png")
    assert sorted(path.name for path in folder.iterdir()) == ["fig3.png", "fig6.png", "notes.md", "tables.json"]


def test_an_analysis_killed_between_two_renames_is_brought_back(tmp_path: Path) -> None:
    folder = tmp_path / "analysis"
    written(folder, "a")
    (folder / "notes.md").write_text("mine")
    folder.rename(tmp_path / ".analysis.old-999999")
    written(folder, "b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["analysis", "b", "notes.md", "tables.json"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("analysis", "output=.*analysis is where you are"),
        (".", "is where you are"),
        ("thesis.tex", "is a file"),
        ("mine", r"has files and no tables\.json"),
        ("other", r"has fig6\.png, which no analysis wrote there"),
        ("/proc/none", r"output=/proc/none cannot be written \(No such file or directory\)"),
    ],
)
def test_a_folder_that_is_no_analysis_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for name in ("analysis", "other"):
        written(tmp_path / name, "a")
        (tmp_path / name / "fig6.png").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / "analysis")
    with pytest.raises(UserError, match=message), replace_files(tmp_path / output, ["fig6.png"]):
        raise AssertionError("the work has begun")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_output_costs_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r8-s0")
    monkeypatch.setattr("deltaw.commands.analyze.measure", lambda *_: pytest.fail("the work has begun"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is no analysis to replace"):
        analyse(config(f"run={run}", f"output={tmp_path / 'mine'}"))
