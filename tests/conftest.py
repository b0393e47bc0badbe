"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import deltaw.exhibit.picture
from tests.support.processes import FORKSERVER
from tests.support.tiny import make_base, make_pairs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=["cuda", "cpu"], default="cuda", help="of the tests marked cuda")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about a GPU where there is none, unless it is asked for on the CPU."""
    if config.getoption("--device") == "cpu" or torch.cuda.is_available():
        return
    skip = pytest.mark.skip(
        reason="PyTorch finds no GPU here: try `pytest -m cuda --device=cpu`, or a machine with one"
    )
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


settings.register_profile("quick", max_examples=25, deadline=None)  # a busy core is no failure
settings.load_profile("quick")

# Runs of several processes are forked where all that they need is loaded, and so are pictures.
FORKSERVER.set_forkserver_preload([deltaw.exhibit.picture.__name__, "deltaw.exhibit.drawing", "tests.support.tiny"])


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


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws without a generator of its own is the same each time."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and pairs to learn; what a module runs there stays beside them."""
    folder = tmp_path_factory.mktemp("tiny")
    make_base(folder / "base")
    make_pairs(folder / "pairs.jsonl")
    return folder
