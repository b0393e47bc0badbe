"""Files that a killed process leaves complete or absent, and locks that keep processes apart."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, writer: str = "") -> Iterator[Path]:
    """Yield a hidden name beside `path` to write a file or a folder under, and at the end rename it to `path`.

    An error in the block removes what was written, and `path` keeps its old content. The next writer of the same name
    removes what a killed process left behind, and brings back a folder that was being replaced.

    Args:
        path: the file or the folder to write; a folder that exists is replaced as a whole.
        writer: part of the hidden names, for example a process number; needed where no lock keeps writers apart.
    """
    new, old = unfinished(path, writer), path.with_name(f".{path.name}.old{writer}")
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in (new, old):
        remove(leftover)
    try:
        yield new
    except BaseException:
        remove(new)
        raise
    if path.is_dir():  # a rename replaces a file, but no folder with files in it
        path.rename(old)
    new.rename(path)
    remove(old)


def unfinished(path: Path, writer: str = "") -> Path:
    """The name under which `replacing` has `path` written."""
    return path.with_name(f".{path.name}.new{writer}")


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the file `path`, which is made where it is missing; the system frees it when a process dies.

    Args:
        path: in a folder that exists.
        wait: wait until no other process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
        OSError: the file cannot be opened for writing.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing need be there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()
