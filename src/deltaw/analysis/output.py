"""The folder of an analysis: its file names, and how it is replaced as a whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaw.errors import UserError

ANALYSIS = "analysis"  # in a run directory

# Besides the pictures of its exhibits.
PHI = "phi.parquet"
PAIRS = "pairs.parquet"
SITES = "sites.parquet"
LOSSES = "losses.parquet"
AMPLIFICATION = "amplification.parquet"
TABLES = "tables.json"
SUMMARY_WORDS = "summary.md"
SUMMARY_NUMBERS = "summary.json"


@contextmanager
def rewritten(folder: Path) -> Iterator[Path]:
    """A folder to fill, which replaces `folder` at once when the block ends; an error leaves the old one.

    Raises:
        UserError: `folder` holds something else than an analysis, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file: give a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / TABLES).is_file():
        raise UserError(f"output={folder} has files and no {TABLES}, so it is no analysis to replace: give another")
    new, old = (folder.with_name(f".{folder.name}.{state}-{os.getpid()}") for state in ("new", "old"))
    try:
        new.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"output={folder} cannot be written ({error.strerror}): give another") from None
    try:
        yield new
    except BaseException:
        shutil.rmtree(new)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
