"""The two parts of the standard library."""

import sysconfig
from pathlib import Path

from deltaw.data import library


def _module(path: Path) -> str:
    return path.relative_to(sysconfig.get_path("stdlib")).parts[0].removesuffix(".py")


def test_no_module_that_the_arms_learn_from_is_in_the_pretraining_text() -> None:
    learnt = {_module(path) for path in library.task_files()}
    assert learnt == library.TASK_MODULES  # this interpreter has every one
    assert not learnt & {_module(path) for path in library.pretraining_files()}
    assert not set(library.task_files()) & set(library.pretraining_files())


def test_files_come_in_the_order_of_their_names() -> None:
    files = list(library.task_files())
    assert files == sorted(files)
