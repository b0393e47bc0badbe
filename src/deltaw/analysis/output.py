"""The folder of an analysis: its name, its files, and how a new analysis replaces the files of an old one."""

import fcntl
import glob
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from deltaw.errors import UserError
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory
from deltaw.run.files import replacing, unfinished
from deltaw.run.json_files import read_json
from deltaw.run.name import digits, shortened

ANALYSIS = "analysis"  # of the default pair, after its last step, in all bases; the names of others begin so

# The files beside the pictures.
PHI = "phi.parquet"
PAIRS = "pairs.parquet"
SITES = "sites.parquet"
MERGE = "merge.parquet"
EXCESS = "excess.parquet"
LOSSES = "losses.parquet"
AMPLIFICATION = "amplification.parquet"
TABLES = "tables.json"
SUMMARY_WORDS = "summary.md"
SUMMARY_NUMBERS = "summary.json"
ADVICE = "advice.json"
PAGE = "report.html"
FILES = (
    *(PHI, PAIRS, SITES, MERGE, EXCESS, LOSSES, AMPLIFICATION, TABLES),
    *(SUMMARY_WORDS, SUMMARY_NUMBERS, ADVICE, PAGE),
)
SHIP = "ship"  # the folder of cut adapters


def name_of_folder(left: Adapter, right: Adapter, basis: str, is_default: bool) -> str:
    """`analysis`, followed by what sets this analysis apart from the default one: its pair, its step and its basis.

    As analysis-r8-s0-r64-s1, analysis-step-100, analysis-update; analysis-r8-s0@50-r8-s0 for two steps of an arm.

    Args:
        left, right: the two adapters.
        basis: the setting; "all" is the default.
        is_default: whether they are the default pair.
    """
    steps = [_earlier_step(side) for side in (left, right)]
    names = [re.sub(r"@\d+$", "", side.name) if side.origin else side.name for side in (left, right)]
    if steps[0] != steps[1]:
        names = [name if step is None else f"{name}@{step}" for name, step in zip(names, steps, strict=True)]
    parts = [] if is_default and steps[0] == steps[1] else names
    if steps[0] == steps[1] is not None:
        parts = [*parts, f"step-{steps[0]}"]
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", "-".join([ANALYSIS, *parts, *([basis] if basis != "all" else [])]))
    return shortened(name, name)


def digits_of(left: Adapter, right: Adapter) -> str:
    """Eight hexadecimal digits that tell two adapters from others with the same names: a hash of their places."""
    sides = [side.origin.run / side.origin.arm if side.origin else side.folder for side in (left, right)]
    return digits("\n".join(os.path.normpath(side.absolute()) for side in sides))


def _earlier_step(side: Adapter) -> int | None:
    """The step of an arm's snapshot; None for the last one, and outside of a run."""
    origin = side.origin
    return origin.step if origin and origin.step != RunDirectory(origin.run).steps(origin.arm)[-1] else None


def record_in(folder: Path) -> dict[str, Any] | None:
    """What the analysis in `folder` recorded; None where there is none, or its record cannot be read.

    What killed processes left beside `folder` is removed first, or brought back.
    """
    try:
        _clear_up(folder.resolve())
        record = read_json(folder / TABLES)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None
    return record if isinstance(record, dict) else None


def names_in_record(record: dict[str, Any] | None, key: str) -> list[str]:
    """The names that an analysis recorded under a key; none where an older version did not record it."""
    names = (record or {}).get(key)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def files_of(exhibits: Iterable[str]) -> list[str]:
    """The names of all files that an analysis with these exhibits may write."""
    stems = [f"{name}{variant}" for name in exhibits for variant in ("", "-times-chance", "-minus-control")]
    return [*FILES, *(f"{stem}{suffix}" for stem in stems for suffix in (".png", ".pdf"))]


def _written(folder: Path) -> list[str]:
    """The names of the files that the analysis in `folder` wrote; an older version recorded its exhibits alone."""
    record = record_in(folder)
    return names_in_record(record, "files") or files_of(names_in_record(record, "exhibits"))


def shipped_in(folder: Path) -> list[str]:
    """The names of the files of cut adapters that the analysis in `folder` wrote, as ship/r64-s0-cut16/…"""
    return [name for name in _written(folder) if name.startswith(f"{SHIP}/")]


@contextmanager
def replace_files(folder: Path, names: Collection[str], kept: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder for the files of an analysis; they replace those of the last one when the block ends.

    All other files of `folder` stay. An error, or the end of this process, leaves `folder` as it was.

    Args:
        folder: need not exist.
        names: of all files that the block may write, by their paths in `folder`.
        kept: files of the last analysis that stay as well.

    Raises:
        UserError: `folder` is a file, has files and no analysis, has one of `names` from elsewhere, is in use as a
            current folder or a mount, or cannot be written. All but a full disk is found before the block.
    """
    with ExitStack() as lock, ExitStack() as replacement:  # the lock is held until all is renamed
        with refusing(folder):
            folder = folder.resolve()
            _clear_up(folder)
            _check(folder, names)
            new = replacement.enter_context(replacing(folder, writer=f"-{os.getpid()}"))
            new.mkdir(parents=True)
            with suppress(OSError):  # a file system without locks
                lock.enter_context(_lock(new, wait=True))
        yield new
        with refusing(folder):
            _keep_others(folder, new, {*_written(folder)} - {*kept})
            replacement.close()


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Say what is wrong with the folder of an analysis where the block cannot write.

    Raises:
        UserError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        cause = error.strerror or error
        raise UserError(f"output={folder} cannot be written ({cause}); nothing was changed: give another") from None


def _clear_up(folder: Path) -> None:
    """Bring `folder` back if a process was killed between its two renames, and remove what killed processes left."""
    hidden = [path.name for path in folder.parent.glob(f".{glob.escape(folder.name)}.*-*")]
    for number in {found[1] for name in hidden if (found := re.search(r"\.(?:new|old)-(\d+)$", name))}:
        new, old = unfinished(folder, f"-{number}"), folder.with_name(f".{folder.name}.old-{number}")
        if _is_held(new):
            continue
        if new.exists() and old.exists() and not folder.exists():  # after the second rename there is no `new`
            old.rename(folder)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _lock(folder: Path, wait: bool) -> Iterator[None]:
    """Hold a lock on a folder; the system frees it when this process dies. Raises OSError where that cannot be done."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_held(folder: Path) -> bool:
    """Whether a process has locked a folder, or nothing tells."""
    try:
        with _lock(folder, wait=False):
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _check(folder: Path, names: Collection[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"output={folder} is a file: give a folder")
    if folder.is_mount():
        raise UserError(f"output={folder} is a mount: give a folder inside it, as output={folder / ANALYSIS}")
    if (here := Path.cwd()).is_relative_to(folder):
        raise UserError(
            f"output={folder} {'is' if here == folder else 'holds'} the current folder: give a folder inside it, as "
            f"output={here / ANALYSIS}"
        )
    if not any(folder.iterdir()):
        return
    if not (folder / TABLES).is_file():
        raise UserError(f"output={folder} has files and no {TABLES}, so it is no analysis to replace: give another")
    ours = _written(folder)
    there = [name for name in sorted(names) if name not in ours and (folder / name).exists()]
    tops = {folder / Path(name).parts[0] for name in names if "/" in name}
    there += [top.name for top in tops if top.is_file() or top.is_symlink()]
    if there:
        raise UserError(f"output={folder} has {there[0]}, which no analysis wrote there: rename it, or give another")


def _keep_others(folder: Path, new: Path, ours: Collection[str], inside: Path = Path()) -> None:
    """Link all in `folder / inside` but the files `ours` into `new`; both hold it until one of them is removed."""
    for entry in (folder / inside).iterdir() if (folder / inside).is_dir() else ():
        name, link = inside / entry.name, new / inside / entry.name
        is_folder = entry.is_dir() and not entry.is_symlink()
        if is_folder and (link.is_dir() or any(one.startswith(f"{name}/") for one in ours)):
            _keep_others(folder, new, ours, name)
        elif str(name) in ours or link.exists():
            continue
        elif is_folder:
            shutil.copytree(entry, link, symlinks=True, copy_function=_link)
        else:
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(entry, link)


def _link(file: str | Path, link: str | Path) -> None:
    try:
        os.link(file, link, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(file, link, follow_symlinks=False)
