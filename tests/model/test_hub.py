"""A machine that is cut off from the hub: nobody waits, and what is in the cache is used."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from deltaw.errors import UserError
from deltaw.model import hub
from deltaw.model.loading import load_base, load_tokenizer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A hub that nobody reaches, with an empty cache; holds the addresses that were asked for."""
    addresses: list[str] = []

    class Unreachable:
        def head(self, address: str, **_: Any) -> None:
            addresses.append(address)
            raise ConnectionError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setattr(hub, "get_session", Unreachable)
    hub.look_for_the_hub.cache_clear()
    yield addresses
    hub.look_for_the_hub.cache_clear()


def test_a_model_that_is_not_here_is_refused_after_one_question(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"model.path=some/model could not be loaded \(We couldn't connect"):
            load_tokenizer("some/model")
    assert asked == [constants.ENDPOINT]
    line = f"{constants.ENDPOINT} cannot be reached: reading local caches alone\n"
    assert capsys.readouterr().out.count(line) == 1


def test_a_model_in_the_cache_is_loaded(asked: list[str], folder: Path, tmp_path: Path) -> None:
    cached, commit = tmp_path / "models--some--model", "0" * 40
    shutil.copytree(folder / "base", cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    base = load_base("some/model", load_tokenizer("some/model"))
    assert base.folder == cached / "snapshots" / commit and base.name == "model"
    assert asked == [constants.ENDPOINT]


def test_a_local_folder_needs_no_hub(asked: list[str], folder: Path) -> None:
    load_tokenizer(str(folder / "base"))
    assert asked == []
