import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from deltaw.errors import UserError
from deltaw.run.directory import EVALUATION
from deltaw.run.metrics import COLUMNS_OF_EVALUATION
from deltaw.run.record import RunRecord
from deltaw.run.writer import RunWriter

CONFIG = OmegaConf.create({"run": {"dir": "here"}, "optim": {"lr": 0.1}, "trainer": {"devices": 1, "max_steps": 5}})
RECORD = RunRecord(base={"name": "tiny", "sha256": "b"}, arms=[], data={"fingerprint": "d"})


def another(**sections: Any) -> DictConfig:
    """The config of the tests, with some sections changed."""
    return OmegaConf.merge(CONFIG, sections)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "changed",
    [
        {"snapshots": {"every": 2}},
        {"metrics": {"every": 2, "validate_every": 3}},
        {"timeout": 5.0},
        {"logger": {"save_dir": "logs"}},
        {"model": {"gradient_checkpointing": True}},
        {"trainer": {"devices": 4}},
        {"data": {"group": None}},  # a key that a run of an older version lacks
    ],
    ids=str,
)
def test_a_setting_that_touches_no_arm_goes_on_with_the_run(changed: dict[str, Any], tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", another()).open(None, RECORD)
    assert RunWriter(tmp_path / "run", another(**changed)).resume_from() is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"trainer": {"max_steps": 9}}, r"trainer.max_steps is 5 there and 9 here, and the learning rate falls to 0"),
        ({"optim": {"lr": 0.2}}, r"\(optim.lr is 0.1 there and 0.2 here\): give another run.name"),
        ({"data": {"group": "author"}}, r"data.group is None there and author here"),
    ],
)
def test_a_setting_that_changes_the_arms_is_refused(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", another()).open(None, RECORD)
    with pytest.raises(UserError, match=words):
        RunWriter(tmp_path / "run", another(**changed)).resume_from()


def test_a_run_that_another_version_began_goes_on_only_if_it_is_finished(tmp_path: Path) -> None:
    old, new = (replace(RECORD, versions={"deltaw": version}) for version in ("0.2.0", "0.3.0"))
    writer = RunWriter(tmp_path / "run", CONFIG)
    writer.open(None, old)
    writer.close()
    writer.checkpoint.parent.mkdir()
    torch.save({"global_step": 3}, writer.checkpoint)
    with pytest.raises(UserError, match=r"begun with deltaw 0.2.0, and the steps of 0.3.0 .* give another run.name"):
        RunWriter(tmp_path / "run", CONFIG).open(3, new)
    torch.save({"global_step": 5}, writer.checkpoint)
    RunWriter(tmp_path / "run", CONFIG).open(5, new)
    assert RunRecord.load(tmp_path / "run" / "run.json").versions == old.versions


def test_a_writer_discards_the_run_that_it_began_and_no_other(tmp_path: Path) -> None:
    first = RunWriter(tmp_path / "run", CONFIG)
    first.open(None, RECORD)
    first.close()
    second = RunWriter(tmp_path / "run", CONFIG)
    second.open(None, RECORD)
    second.discard()
    assert (tmp_path / "run" / "config.yaml").exists()
    first.discard()
    assert not (tmp_path / "run").exists()


def test_a_writer_discards_its_own_files_alone(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "empty").mkdir()
    for name in ("new", "link", "empty"):
        writer = RunWriter(tmp_path / name, CONFIG)
        writer.open(None, RECORD)
        writer.write_snapshot("arm", 0, {"x": torch.ones(3)}, {"r": 1}, {})
        writer.append_evaluation(EXAMPLES)
        writer.checkpoint.parent.mkdir()
        writer.checkpoint.touch()
        if name == "new":
            (tmp_path / name / "note.txt").write_text("mine")
        writer.discard()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["disk", "empty", "link", "new", "new/note.txt"]


def test_a_snapshot_may_be_read_by_whoever_may_read_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        RunWriter(tmp_path, CONFIG).write_snapshot("arm", 5, {"x": torch.ones(3)}, {"r": 1}, {})
    finally:
        os.umask(before)
    files = (tmp_path / "snapshots" / "arm" / "step-00000005").iterdir()
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o640"}


def test_a_directory_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UserError, match=r"run\.dir=.*/run: .*/run may not be read: give another run\.dir"):
        RunWriter(tmp_path / "run", CONFIG).resume_from()


def test_a_second_live_process_is_refused(tmp_path: Path) -> None:
    first = RunWriter(tmp_path / "run", CONFIG)
    first.open(None, RECORD)
    with pytest.raises(UserError, match="is being written by another process"):
        RunWriter(tmp_path / "run", CONFIG).open(None, RECORD)
    first.close()
    RunWriter(tmp_path / "run", CONFIG).open(None, RECORD)


def test_a_folder_that_is_no_run_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        UserError, match=r"run\.dir=.* exists and holds no config\.yaml of a run: give another run\.name or"
    ):
        RunWriter(tmp_path, CONFIG).resume_from()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_killed_writer_leaves_complete_snapshots_or_none(tmp_path: Path) -> None:
    """Killed before any of the renames, the writer leaves a folder that loads, or none."""
    script = f"""
import os, sys, torch
from pathlib import Path
from omegaconf import OmegaConf
from deltaw.run.writer import RunWriter
renames, path_rename = int(sys.argv[1]), Path.rename
def rename(self, target):
    global renames
    if renames == 0:
        os._exit(9)
    renames -= 1
    return path_rename(self, target)
Path.rename = rename
writer = RunWriter(Path({str(tmp_path)!r}) / sys.argv[1], OmegaConf.create({{}}))
for step in (0, 5):
    writer.write_snapshot("arm", step, {{"x": torch.full((3,), float(step))}}, {{"r": 1}}, {{}})
"""
    from safetensors.torch import load_file

    for renames, whole in ((0, []), (1, [0]), (2, [0, 5])):
        subprocess.run([sys.executable, "-c", script, str(renames)], check=False, timeout=300)
        folders = sorted((tmp_path / str(renames) / "snapshots" / "arm").glob("step-*"))
        assert [int(folder.name[5:]) for folder in folders] == whole
        for folder, step in zip(folders, whole, strict=True):
            assert load_file(folder / "adapter_model.safetensors")["x"].tolist() == [step] * 3


def test_the_snapshot_of_step_0_stays_and_a_later_one_is_replaced(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, CONFIG)
    (tmp_path / "snapshots" / "arm" / ".step-00000005.old").mkdir(parents=True)  # left by a run that was killed
    for value in (1.0, 2.0):
        for step in (0, 5):
            writer.write_snapshot("arm", step, {"x": torch.full((3,), value)}, {"r": 1}, {})
    kept = {step: (writer.run.snapshot("arm", step) / "adapter_model.safetensors").read_bytes() for step in (0, 5)}
    assert kept[0] != kept[5]
    assert sorted(path.name for path in (tmp_path / "snapshots" / "arm").iterdir()) == [
        "step-00000000",
        "step-00000005",
    ]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, CONFIG)
    writer.open(None, RECORD)
    for step in (5, 10, 11):
        writer.append_metrics(step, [("arm", "train/loss", step / 3)])
    writer.checkpoint.parent.mkdir()
    torch.save({"global_step": 10}, writer.checkpoint)
    writer.close()
    again = RunWriter(tmp_path, CONFIG)
    again.open(10, RECORD)
    assert (again.resume_from(), again.run.metrics()["step"].tolist()) == (10, [5, 10])
    assert again.run.metrics()["value"].tolist() == [5 / 3, 10 / 3]


EXAMPLES = pd.DataFrame(
    {
        "arm": ["a", "b"],
        "step": 0,
        "split": "judged",
        "cut": [None, 4],
        "dropped": "",
        "example": 3,
        "group": 1,
        "loss": [0.5, 1 / 3],
        "labels": 2,
        "right": [1, 0],
    }
).astype(COLUMNS_OF_EVALUATION)


def test_the_evaluation_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, CONFIG)
    writer.open(None, RECORD)
    assert (list(writer.run.evaluation().columns), len(writer.run.evaluation())) == (list(COLUMNS_OF_EVALUATION), 0)
    for step in (0, 10, 11):
        writer.append_evaluation(EXAMPLES.assign(step=step))
    writer.checkpoint.parent.mkdir()
    torch.save({"global_step": 10}, writer.checkpoint)
    writer.close()
    again = RunWriter(tmp_path, CONFIG)
    again.open(10, RECORD)
    table = again.run.evaluation()
    assert (table.dtypes.astype(str).to_dict(), table.step.tolist()) == (COLUMNS_OF_EVALUATION, [0, 0, 10, 10])
    pd.testing.assert_frame_equal(table[:2], EXAMPLES)


def test_an_evaluation_is_whole_after_its_writer_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self: pd.DataFrame, path: Path, index: bool) -> None:
        path.write_bytes(b"PAR1")
        raise MemoryError

    writer = RunWriter(tmp_path, CONFIG)
    writer.append_evaluation(EXAMPLES)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(pd.DataFrame, "to_parquet", die)
        writer.append_evaluation(EXAMPLES.assign(step=5))
    assert writer.run.evaluation().step.tolist() == [0, 0]
    (tmp_path / EVALUATION).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"evaluation\.parquet cannot be read .* delete it"):
        writer.run.evaluation()


def test_a_checkpoint_cut_short_is_named(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, CONFIG)
    writer.open(None, RECORD)
    writer.checkpoint.parent.mkdir()
    writer.checkpoint.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"last.ckpt cannot be read .* delete it"):
        writer.resume_from()
