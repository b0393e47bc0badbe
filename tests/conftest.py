"""What all tests share."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)  # a busy core is no failure
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tokens are kept with the tests' own files, also those of the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTAW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Everything is small: several threads on busy cores would mostly wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of the processes that tests start
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
