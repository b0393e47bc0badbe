"""The two parts of the standard library."""

from deltaw.data import library


def test_no_module_that_the_arms_learn_from_is_in_the_pretraining_text() -> None:
    learnt = {library._module(path) for path in library.task_files()}
    assert learnt == library.TASK_MODULES  # this interpreter has every one
    assert not learnt & {library._module(path) for path in library.pretraining_files()}
    assert not set(library.task_files()) & set(library.pretraining_files())
