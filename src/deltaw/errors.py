"""What the commands share: an error of the user's is one line and a non-zero exit, no traceback."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


class UserError(Exception):
    """Something given by the user cannot be used: the message names the value, the cause and the way on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`; "" if none is."""
    return next(iter(get_close_matches(name, list(known), n=1)), "")


def shorten(value: str) -> str:
    """The value as a message shows it: the middle of a long one is left out."""
    return value if len(value) <= 120 else f"{value[:60]}…{value[-40:]}"


def run(main: Callable[[], None]) -> None:
    """Call `main`; an error of the user's ends it with one line on stderr, a closed pipe without a word."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors here instead of printing several lines
    try:
        with _permissions():
            main()
    except UserError as error:
        _end(error)
    except BrokenPipeError:
        _end_unread()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Within a `hydra.main` function: end with one line on stderr; Hydra would print one of its own above it."""
    try:
        with _permissions():
            yield
    except UserError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the sweep goes on, and ends with this
        _end(error)
    except BrokenPipeError:
        _end_unread()


@contextmanager
def _permissions() -> Iterator[None]:
    """Within the block, a file without the permission that is needed is an error of the user's."""
    try:
        yield
    except PermissionError as error:
        if error.filename is None:
            raise
        raise UserError(
            f"{error.filename} may not be read or written ({error.strerror}): give another, or change its permissions"
        ) from error


def _end_unread() -> None:
    """End where whoever read the output has ended, as head does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail once more at exit
    sys.exit(1)


def _end(error: UserError) -> None:
    sys.exit("error: " + re.sub(r"\s*\n\s*", " ", str(error).strip()))
