"""The source of the Python standard library in two parts: the base is pretrained on one, arms learn from the other.

So no arm is trained on text that the base has seen. Every supported interpreter has the modules in `TASK_MODULES`;
builds differ in others (tkinter, idlelib, the tests).
"""

import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

TASK_MODULES = frozenset(
    """
    argparse ast asyncio calendar codecs collections concurrent configparser dataclasses difflib doctest email enum
    ftplib functools http imaplib importlib inspect ipaddress logging mailbox multiprocessing optparse pathlib pdb
    pickle platform plistlib pprint re shutil smtplib socket socketserver ssl statistics subprocess tarfile tempfile
    threading traceback typing urllib wsgiref xml xmlrpc zipfile
    """.split()
)

# Tables of numbers, generated text and files of other projects teach nothing about writing code.
_LEFT_OUT = frozenset({"encodings", "pydoc_data", "site-packages", "dist-packages", "__pycache__"})


def task_files() -> Iterator[Path]:
    """Source files of `TASK_MODULES` in the running interpreter, sorted by name."""
    return _files(lambda module: module in TASK_MODULES)


def pretraining_files() -> Iterator[Path]:
    """Every other source file of the running interpreter's library, its tests included."""
    return _files(lambda module: module not in TASK_MODULES)


def _files(chosen: Callable[[str], bool]) -> Iterator[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    # Only the places chosen are walked: site-packages, which is none of the task's, holds more than all the library.
    places = [place for place in library.iterdir() if chosen(place.name.removesuffix(".py"))]
    files = (file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place]))
    for file in sorted(files):
        if file.suffix == ".py" and not _LEFT_OUT.intersection(file.relative_to(library).parts):
            yield file
