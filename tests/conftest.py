"""What all tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)  # a busy core is no failure
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tokens are kept with the tests' own files, also those of the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTAW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
