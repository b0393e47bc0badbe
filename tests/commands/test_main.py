"""The command line in front of the commands."""

import pytest

import deltaw
from deltaw.__main__ import COMMANDS, main


def call(*words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["deltaw", *words])
    main()


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_without_a_command_all_are_named(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*words, monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call("--version", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == f"deltaw {deltaw.__version__}\n"


def test_an_unknown_command_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no command 'trian': give one of train, analyze, fold"):
        call("trian", monkeypatch=monkeypatch)
