"""The folder of an analysis: its file names, and how a new analysis replaces an old one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaw.errors import UserError
from deltaw.run.files import replacing

ANALYSIS = "analysis"  # in a run directory

# The files beside the pictures.
PHI = "phi.parquet"
PAIRS = "pairs.parquet"
SITES = "sites.parquet"
EXCESS = "excess.parquet"
LOSSES = "losses.parquet"
AMPLIFICATION = "amplification.parquet"
TABLES = "tables.json"
SUMMARY_WORDS = "summary.md"
SUMMARY_NUMBERS = "summary.json"


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill, which replaces `folder` when the block ends; an error keeps the old folder.

    Raises:
        UserError: `folder` is a file, holds other files than an analysis, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file: give a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / TABLES).is_file():
        raise UserError(f"output={folder} has files and no {TABLES}, so it is no analysis to replace: give another")
    with replacing(folder, writer=f"-{os.getpid()}") as new:
        try:
            new.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"output={folder} cannot be written ({error.strerror}): give another") from None
        yield new
