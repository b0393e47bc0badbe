"""What the two commands share: an error of the user's is one line and a non-zero exit, no traceback."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException


class UserError(Exception):
    """Something given by the user cannot be used: the message names the value, the cause and the way on."""


USER_ERRORS = (UserError, HydraException, OmegaConfBaseException)


def run(main: Callable[[], None]) -> None:
    """Call a `hydra.main` function; a config that does not compose ends it with one line on stderr."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors here instead of printing several lines
    try:
        main()
    except USER_ERRORS as error:
        _end(error)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Within a `hydra.main` function: end with one line on stderr; Hydra would print one of its own above it."""
    try:
        yield
    except USER_ERRORS as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the sweep goes on, and ends with this
        _end(error)


def _end(error: Exception) -> None:
    told = error if isinstance(error, UserError) else error.__cause__ or error  # Hydra's causes name the value
    sys.exit("error: " + " ".join(str(told).split()))
