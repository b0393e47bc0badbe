"""An error of the user's ends a command with one line."""

from pathlib import Path

import pytest

from deltaw import errors
from deltaw.entry.analyze import main as analyze


def test_a_file_that_may_not_be_read_ends_a_command_with_one_line() -> None:
    def read() -> None:
        raise PermissionError(13, "Permission denied", "locked/rows.jsonl")

    words = r"^error: locked/rows.jsonl may not be read or written \(Permission denied\): give another, or change its"
    with pytest.raises(SystemExit, match=words):
        errors.run(read)


def test_a_missing_permission_of_no_file_is_no_error_of_the_users() -> None:
    def connect() -> None:
        raise PermissionError("a port below 1024")

    with pytest.raises(PermissionError):
        errors.run(connect)


def test_an_adapter_in_a_locked_folder_ends_an_analysis_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent == Path("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["analyze.py", "left=locked", "right=other"])
    (tmp_path / "locked").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(SystemExit, match=r"^error: locked/run.json may not be read or written"):
        analyze()
    assert "Traceback" not in capsys.readouterr().err
