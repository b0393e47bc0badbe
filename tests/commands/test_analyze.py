"""`analyze.py` as a user starts it: what it compares, and where it writes."""

import errno
import fcntl
import json
import os
import re
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
from deltaw.analysis.output import record_in, replace_files
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
FILES = [*FIGURES, *TABLES, "advice.json", "report.html", "summary.json", "summary.md", "tables.json"]


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
    sentences = json.loads((analysis / "advice.json").read_text())["sentences"]
    told = [*findings, "", *sentences, *pictures, "runs/newest/analysis/report.html"]
    assert done.stdout.splitlines()[-len(told) :] == told
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
    in_two_runs = [find_adapter(str(tmp_path / name), [both], None) for name in ("low", "high")]
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
        (["base=/nonexistent"], "base=/nonexistent: is no folder: give the folder with the base's config.json"),
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
    assert default_pair([run], None, None) == ("r2-s0", "r4-s0")
    assert default_pair([run], "r4-s0", None) == ("r4-s0", "r2-s0")
    assert default_pair([run], None, "r2-s0") == ("r4-s0", "r2-s0")
    assert default_pair([], "a", "b") == ("a", "b")


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
    assert default_pair([run], None, f"r{right}-s0" if right else None) == (f"r{pair[0]}-s0", f"r{pair[1]}-s0")


def test_two_seeds_of_one_rank_are_a_pair(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r8-s0", "r8-s1"))
    assert default_pair([run], None, None) == ("r8-s0", "r8-s1")


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
        find_adapter("r2-s0", [run], None)
    assert find_adapter("r2-s0", [run], 0).origin == Origin(run.path, "r2-s0", 0, "a" * 64)


def test_one_arm_is_no_pair(tmp_path: Path) -> None:
    single = RunDirectory(write_run(tmp_path / "single", "r2-s0"))
    with pytest.raises(UserError, match=r"\['r2-s0'\]"):
        default_pair([single], None, None)
    with pytest.raises(UserError, match="no run"):
        default_pair([], None, "r2-s0")


def test_a_name_is_an_arm_a_run_of_one_arm_or_a_folder(tmp_path: Path, run: RunDirectory) -> None:
    write_run(tmp_path / "single", "r8-s0")
    assert find_adapter("r2-s0", [run], None).folder == run.snapshot("r2-s0", 10)
    assert find_adapter("r2-s0", [run], 0).folder == run.snapshot("r2-s0", 0)
    assert find_adapter(str(tmp_path / "single"), [run], None).name == "r8-s0"
    assert find_adapter(str(write_adapter(tmp_path / "folder", rank=3)), [], None).origin is None


def test_a_step_follows_its_arm_or_run(tmp_path: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "single", "r8-s0")
    assert find_adapter("r2-s0@0", [run], None).folder == run.snapshot("r2-s0", 0)
    assert find_adapter("r2-s0@10", [run], 0).folder == run.snapshot("r2-s0", 10)
    assert find_adapter("single@0", [run], None).origin == Origin(Path("single"), "r8-s0", 0, "a" * 64)
    start = find_adapter("r2-s0", [run], None).start
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
            find_adapter(name, [run], step)


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


def analysed(folder: Path, pairs: list[tuple[str, str]], *settings: str) -> list[str]:
    """Analyse the pairs one after another; the names of the folders that hold them, in the same order."""
    for left, right in pairs:
        analyse(config(f"left={left}", f"right={right}", "exhibits=[]", "basis=A", *settings))
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("analysis*/tables.json")}
    held = {
        tuple(record[side]["folder"].partition("/snapshots")[0] for side in ("left", "right")): name
        for name, record in records.items()
    }
    assert len(held) == len(set(pairs))  # none has replaced another
    return [held[str(Path(left).absolute()), str(Path(right).absolute())] for left, right in pairs]


def test_pairs_of_folders_with_one_name_do_not_replace_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["A/r2", "A/r4", "B/r2", "B/r4", "C/r2", "C/r4"]):
        write_adapter(tmp_path / name, rank=2, seed=number)
    pairs = [(f"{one}/r2", f"{one}/r4") for one in "ABC"]
    first, second, third = analysed(tmp_path, pairs)
    assert (first, second) == ("analysis-A", "analysis-r2-r4-A")
    assert re.fullmatch(r"analysis-r2-r4-A-[0-9a-f]{8}", third)
    assert analysed(tmp_path, pairs) == [first, second, third]
    shutil.rmtree(tmp_path / first)
    assert analysed(tmp_path, pairs[1:] + pairs[:1]) == [second, third, first]


def test_pairs_whose_names_join_to_one_do_not_replace_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["a", "a-b", "b-c", "c"]):
        write_adapter(tmp_path / name, rank=2, seed=number)
    analysed(tmp_path, [("a", "c"), ("a-b", "c"), ("a", "b-c")])


def test_runs_of_one_name_do_not_replace_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("A/x", "B/x", "one/y", "other/y"):
        write_run(tmp_path / name, "r4-s0" if name.endswith("x") else "r2-s0")
    analysed(tmp_path, [("A/x", "one/y"), ("A/x", "other/y"), ("B/x", "other/y")])


def test_an_arm_with_two_others_of_one_name_has_two_folders_in_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", "r2-s0", "r4-s0")
    for name in ("one", "other"):
        write_run(tmp_path / name, "r8-s0")
        analyse(config("run=run", "left=r2-s0", f"right={name}", "exhibits=[]"))
    first, second = sorted(path.name for path in run.glob("analysis*"))
    assert first == "analysis-r2-s0-r8-s0" and re.fullmatch(rf"{first}-[0-9a-f]{{8}}", second)


def test_a_copied_or_renamed_run_keeps_the_folder_of_its_pair(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r4-s0")
    analyse(config(f"run={run}", "exhibits=[]"))
    for name in ("copies/run", "other-name"):
        analyse(config(f"run={shutil.copytree(run, tmp_path / name)}", "exhibits=[]"))
        assert [path.name for path in (tmp_path / name).glob("analysis*")] == ["analysis"]


def test_jobs_of_one_experiment_are_analysed_into_the_first(tmp_path: Path) -> None:
    jobs = [write_run(tmp_path / f"s{seed}", f"r2-s{seed}", f"r4-s{seed}") for seed in (0, 1)]
    analyse(config(f"run=[{jobs[0]},{jobs[1]}]", "exhibits=[]", "basis=A"))
    assert [path.name for path in tmp_path.glob("*/analysis*")] == ["analysis-A"]
    record = json.loads((jobs[0] / "analysis-A" / "tables.json").read_text())
    assert record["runs"] == [str(job) for job in jobs]
    pairs = pd.read_parquet(jobs[0] / "analysis-A" / "pairs.parquet")
    assert {("r2-s0", "r4-s1"), ("r2-s1", "r4-s0")} < set(zip(pairs.left, pairs.right, strict=True))
    assert len(pd.read_parquet(jobs[0] / "analysis-A" / "losses.parquet")) == 4
    analyse(config(f"run=[{jobs[0]},{jobs[1]}]", "left=s1/r4-s1", "right=r2-s0", "exhibits=[]", "basis=A"))
    assert sorted(path.name for path in jobs[0].glob("analysis*")) == ["analysis-A", "analysis-r4-s1-r2-s0-A"]


def test_runs_of_two_experiments_or_of_none_are_refused(tmp_path: Path) -> None:
    jobs = [write_run(tmp_path / name, "r2-s0", "r4-s0", base=name * 64) for name in "ab"]
    with pytest.raises(UserError, match=r"are not one experiment \(the base's hash is aaaaaaaaaaaa in .*/a and bbbb"):
        analyse(config(f"run=[{jobs[0]},{jobs[1]}]"))
    with pytest.raises(UserError, match="run= is empty"):
        analyse(config("run=[]"))
    assert not list(tmp_path.glob("*/analysis*"))


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
    (tmp_path / ".analysis.new-999999").mkdir()
    assert record_in(folder) == {"files": ["tables.json", "a"]}
    written(folder, "b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["analysis", "b", "notes.md", "tables.json"]


def test_what_killed_processes_left_is_removed_and_a_deleted_analysis_stays_deleted(tmp_path: Path) -> None:
    for hidden in (".analysis.old-999998", ".analysis.new-999999", ".analysis.new-999997"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "notes.md").write_text("half")
    at_work = os.open(tmp_path / ".analysis.new-999997", os.O_RDONLY)
    fcntl.flock(at_work, fcntl.LOCK_EX)
    written(tmp_path / "analysis", "a")
    os.close(at_work)
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()]
    assert sorted(names) == [".analysis.new-999997/notes.md", "analysis/tables.json"]


def test_an_analysis_at_work_holds_its_hidden_folder(tmp_path: Path) -> None:
    with replace_files(tmp_path / "analysis", ["a"]) as new:
        assert record_in(tmp_path / "analysis") is None
        assert new.is_dir()


def test_a_record_nested_too_deep_is_none(tmp_path: Path) -> None:
    (tmp_path / "tables.json").write_text("[" * 100_000)
    assert record_in(tmp_path) is None


def test_only_a_failed_write_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), replace_files(tmp_path / "analysis", ["a"]):
        raise BrokenPipeError
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = write_run(tmp_path / "run", "r2-s0", "r8-s0")
    monkeypatch.setattr("deltaw.exhibit.tables.Tables.write", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); nothing was changed"):
        analyse(config(f"run={run}", "exhibits=[]"))
    assert not list(run.glob("*analysis*"))


def test_a_closed_pipe_ends_an_analysis_without_a_word(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "r2-s0", "r8-s0")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, str(SCRIPT), "run=run", "exhibits=[]"]
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert not list((tmp_path / "run").glob("*analysis*"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "analysis",
            "output=.*analysis is the current folder: give a folder inside it, as output=.*/analysis/analysis",
        ),
        (".", "holds the current folder"),
        ("/", "is a mount: give a folder inside it, as output=/analysis"),
        ("thesis.tex", "is a file"),
        ("mine", r"has files and no tables\.json"),
        ("other", r"has fig6\.png, which no analysis wrote there"),
        ("/proc/none", r"output=/proc/none cannot be written \(No such file or directory\); nothing was changed"),
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
