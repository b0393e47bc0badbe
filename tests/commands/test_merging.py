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
    third, arm = ("/".join(Path(path).parts[-2:]) for path in (c, run))
    pairs = [("a", "b"), ("a", third), ("a", arm), ("b", third), ("b", arm), (third, arm)]
    assert [line.partition(": ")[0] for line in lines(capsys.readouterr().out)] == [" + ".join(pair) for pair in pairs]
    table = pd.read_parquet(output / "merge.parquet")
    assert list(table) == list(columns.MERGE) and len(table) == 8 * len(pairs)
    assert "## Merging" in (output / "summary.md").read_text(encoding="utf-8")


def test_a_pair_beside_left_has_all_the_sites_that_it_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not those of left alone: the verdict is that of the two by themselves."""
    q, b, c = (
        f"{write_adapter(tmp_path / name, 2, seed=seed, projections=projections)}"
        for seed, (name, projections) in enumerate([("a", "q"), ("b", "qv"), ("c", "qv")])
    )
    together = pd.read_parquet(analyze(tmp_path / "three", f"left={q}", f"right={b}", f"others={c}") / "merge.parquet")
    alone = pd.read_parquet(analyze(tmp_path / "two", f"left={b}", f"right={c}") / "merge.parquet")
    assert together.groupby(["left", "right"], sort=False).size().tolist() == [4, 4, 8]
    numbers = [name for name in columns.MERGE if name not in ("left", "right")]
    pd.testing.assert_frame_equal(together[8:].reset_index(drop=True)[numbers], alone[numbers])
    assert "left out are" in capsys.readouterr().out


def test_what_is_wrong_with_another_pair_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_adapter(tmp_path / "a", 4, seed=0)
    b = write_adapter(tmp_path / "b", 4, seed=1)
    c = write_adapter(tmp_path / "c", 4, seed=0, base_model_name_or_path="another/base")
    dora = write_adapter(tmp_path / "dora", 4, seed=3, use_dora=True)
    output = analyze(tmp_path / "out", f"left={a}", f"right={b}", f"others=[{c},{dora}]")
    for said in (capsys.readouterr().out, (output / "summary.md").read_text(encoding="utf-8")):
        assert "another/base" in said and "only if both are the same base" in said
        assert "Shared initialisation: the rows of A of a and" in said and "is a DoRA: nothing is said" in said


def test_adapters_of_one_name_are_told_apart_and_one_adapter_is_compared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, z = (write_adapter(tmp_path / name / "lora", 2, seed=seed) for seed, name in enumerate(["x", "y", "here/y"]))
    monkeypatch.chdir(tmp_path / "here")
    output = analyze(tmp_path / "out", f"left={x}", f"right={y}", f"others=[y/lora,{x},y/lora]")
    table = pd.read_parquet(output / "merge.parquet")
    sizes = table.groupby(["left", "right"], sort=False).size()
    assert sizes.tolist() == [8, 8, 8] and len(set(table.left) | set(table.right)) == 3
    alone = pd.read_parquet(analyze(tmp_path / "two", f"left={x}", f"right={z}") / "merge.parquet")
    assert table.cosine[8:16].tolist() == alone.cosine.tolist()


def test_an_adapter_that_needs_its_start_has_a_way_on(tmp_path: Path, folders: list[str]) -> None:
    a, b, _ = folders
    pissa = write_adapter(tmp_path / "pissa", 2, seed=5, init_lora_weights="pissa")
    with pytest.raises(UserError, match="others= has no place for a start"):
        analyze(tmp_path / "out", f"left={a}", f"right={b}", f"others={pissa}")


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
    assert line.startswith(f"a + {'/'.join(Path(b).parts[-2:])}: ")


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(tmp_path: Path, folders: list[str]) -> None:
    a, b, _ = folders
    other = write_adapter(tmp_path / "k", 2, seed=5, projections="k")
    with pytest.raises(UserError, match="no site in common"):
        analyze(tmp_path / "out", f"left={a}", f"right={b}", f"others={other}")
    with pytest.raises(UserError, match="nowhere"):
        analyze(tmp_path / "out", f"left={a}", f"right={b}", "others=[no/nowhere]")
    assert not (tmp_path / "out").exists()
