import multiprocessing
from pathlib import Path

import pytest

from deltaw.run.files import locked, replacing


def fill(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text(text)


def test_a_file_and_a_folder_are_replaced_by_what_the_block_writes(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replacing(tmp_path / "file") as new:
            new.write_text(text)
        with replacing(tmp_path / "folder") as new:
            fill(new, text)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "a.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_error_in_the_block_keeps_the_old_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "folder") as new:
        fill(new, "new")
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "a.txt").read_text() == "old"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    fill(tmp_path / ".folder.new", "half")
    fill(tmp_path / ".folder.old", "old")
    (tmp_path / ".file.new").write_text("half")
    with replacing(tmp_path / "folder") as new:
        fill(new, "new")
    with replacing(tmp_path / "file") as new:
        new.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_writers_of_different_names_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder", "-1") as one, replacing(tmp_path / "folder", "-2") as other:
        fill(one, "one")
        fill(other, "other")
    assert (tmp_path / "folder" / "a.txt").read_text() == "one"  # its block ends last
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_lock_that_is_held_is_refused_at_once_and_free_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass


def add_one(folder: Path) -> None:
    for _ in range(50):
        with locked(folder / "lock"):
            count = int((folder / "count").read_text())
            (folder / "count").write_text(str(count + 1))


def test_processes_wait_for_the_lock_of_one_another(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    processes = [multiprocessing.get_context("fork").Process(target=add_one, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "150"
