"""What a user has who installs the package: a wheel in an empty environment, in an empty folder."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.tiny import ROOT

pytestmark = pytest.mark.slow
SMOKE = ["experiment=smoke", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(ROOT, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (built,) = folder.glob("deltaw-*.whl")
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a new environment that holds the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    install: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "-c",
        ROOT / "constraints.txt",
    ]
    _run(folder, *install, "torch")
    _run(folder, *install, wheel)
    return folder / "bin"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def _run(folder: Path, *command: str | Path) -> str:
    """What a command prints, which has to succeed; it knows nothing of the clone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_wheel_holds_the_configs_as_they_are(wheel: Path) -> None:
    files = {str(file.relative_to(ROOT)): file.read_bytes() for file in (ROOT / "conf").rglob("*") if file.is_file()}
    with ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.startswith("deltaw/conf/")]
        assert {name.removeprefix("deltaw/"): packed.read(name) for name in names} == files


def test_it_trains_and_draws_the_figure(bin_folder: Path, here: Path) -> None:
    _run(here, bin_folder / "deltaw", "train", *SMOKE)
    out = _run(here, bin_folder / "deltaw", "analyze")
    (figure,) = here.glob("runs/*/analysis/fig6.png")
    assert str(figure.relative_to(here)) in out


def test_it_sweeps_also_over_experiments_of_ones_own(bin_folder: Path, here: Path) -> None:
    _run(here, bin_folder / "deltaw", "train", "-m", "arms.ranks=[2],[4]", *SMOKE)
    assert {path.name for path in here.glob("runs/bundled-calls-*")} >= {"bundled-calls-r2-s0", "bundled-calls-r4-s0"}
    own = here / "mine" / "experiment"
    own.mkdir(parents=True)
    (own / "own.yaml").write_text("# @package _global_\ntrainer: {max_steps: 2}\narms: {ranks: [3]}\n")
    _run(
        here,
        bin_folder / "python",
        "-m",
        "deltaw",
        "train",
        "--config-dir=mine",
        "-m",
        "experiment=own",
        *SMOKE[1:],
        "data.batch=2",
        "data.validation=2",
        "arms.seeds=[0],[1]",
    )
    assert len(list(here.glob("runs/bundled-calls-r3-s*/run.json"))) == 2


@pytest.mark.parametrize("how", ["torchrun", "lightning"])
def test_it_starts_several_processes(bin_folder: Path, here: Path, how: str) -> None:
    by = ["torchrun", "--nproc-per-node=2", "-m", "deltaw"] if how == "torchrun" else ["deltaw"]
    devices = [] if how == "torchrun" else ["trainer.devices=2"]
    _run(here, bin_folder / by[0], *by[1:], "train", *SMOKE, f"run.name=two-{how}", *devices)
    assert (here / "runs" / f"two-{how}" / "snapshots" / "r8-s0" / "step-00000004").is_dir()


def test_help_names_every_command_and_the_keys_with_their_meaning(bin_folder: Path, here: Path) -> None:
    assert "analyze" in _run(here, bin_folder / "deltaw")
    keys = _run(here, bin_folder / "deltaw", "train", "--help")
    trainer = (ROOT / "conf" / "train.yaml").read_text(encoding="utf-8").partition("\ntrainer:")[2].partition("\n\n")[0]
    assert "max_steps" in trainer and trainer in keys and "experiment= chooses one of: " in keys
    assert "\nleft: null #" in _run(here, bin_folder / "deltaw", "analyze", "--help")
