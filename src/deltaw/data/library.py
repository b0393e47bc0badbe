"""The source of the Python standard library in two parts: the base is pretrained on one, arms learn from the other.

So no arm is trained on text that the base has seen. Every supported interpreter has the modules in `TASK_MODULES`;
builds differ in others (tkinter, idlelib, the tests).
"""

import sysconfig
from collections.abc import Iterator
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
    return (path for path in _files() if _module(path) in TASK_MODULES)


def pretraining_files() -> Iterator[Path]:
    """Every other source file of the running interpreter's library, its tests included."""
    return (path for path in _files() if _module(path) not in TASK_MODULES)


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _module(path: Path) -> str:
    return path.relative_to(_library()).parts[0].removesuffix(".py")


def _files() -> Iterator[Path]:
    for path in sorted(_library().rglob("*.py")):
        if not _LEFT_OUT.intersection(path.relative_to(_library()).parts):
            yield path
