"""`deltaw analyze` on two adapters and more: the lines about merging, and the table behind them."""

from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from deltaw.analysis import columns
from deltaw.commands.analyze import analyse
from deltaw.config.folder import CONF
from deltaw.config.schema import register
from deltaw.errors import UserError
from tests.support.folders import write_adapter, write_run

register()


def analyze(output: Path, *overrides: str) -> Path:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        analyse(compose("analyze", [*overrides, f"output={output}", "exhibits=[]"]))
    return output


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [f"{write_adapter(tmp_path / name, 2, seed=seed)}" for seed, name in enumerate("abc")]


def lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if " + " in line]


def test_every_pair_has_a_line_and_its_sites(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = folders
    run = write_run(tmp_path / "run", "r4-s0")
    output = analyze(tmp_path / "out", f"left={a}", f"right={b}", f"others=[{c},{run}]")
    pairs = [("a", "b"), ("a", c), ("a", f"{run}"), ("b", c), ("b", f"{run}"), (c, f"{run}")]
    assert [line.partition(": ")[0] for line in lines(capsys.readouterr().out)] == [" + ".join(pair) for pair in pairs]
    table = pd.read_parquet(output / "merge.parquet")
    assert list(table) == list(columns.MERGE) and len(table) == 8 * len(pairs)
    assert "## Merging" in (output / "summary.md").read_text(encoding="utf-8")


def test_two_arms_of_one_run_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = analyze(tmp_path / "out", f"run={write_run(tmp_path / 'run', 'r2-s0', 'r4-s0')}")
    assert not lines(capsys.readouterr().out) and not (output / "merge.parquet").exists()


def test_without_b_for_the_figures_it_is_read_for_the_verdict(tmp_path: Path, folders: list[str]) -> None:
    a, b, _ = folders
    each = [analyze(tmp_path / basis, f"left={a}", f"right={b}", f"basis={basis}") for basis in ("A", "all")]
    one, other = (pd.read_parquet(output / "merge.parquet") for output in each)
    pd.testing.assert_frame_equal(one, other)


def test_a_dora_has_no_verdict(tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    a, b, _ = folders
    dora = write_adapter(tmp_path / "dora", 2, seed=5, use_dora=True)
    analyze(tmp_path / "out", f"left={a}", f"right={dora}", f"others=[{b}]")
    (line,) = lines(capsys.readouterr().out)
    assert line.startswith(f"a + {b}: ")


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(tmp_path: Path, folders: list[str]) -> None:
    a, b, _ = folders
    other = write_adapter(tmp_path / "k", 2, seed=5, projections="k")
    with pytest.raises(UserError, match="no site in common"):
        analyze(tmp_path / "out", f"left={a}", f"right={b}", f"others={other}")
    with pytest.raises(UserError, match="nowhere"):
        analyze(tmp_path / "out", f"left={a}", f"right={b}", "others=[no/nowhere]")
    assert not (tmp_path / "out").exists()
