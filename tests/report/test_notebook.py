"""What a notebook shows of adapters and runs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import deltaw
from deltaw.errors import UserError
from deltaw.report.notebook import PairComparison
from tests.support.folders import write_adapter, write_run
from tests.support.judged import Examples, Measured, write_judged


def folders(path: Path) -> PairComparison:
    return deltaw.compare(write_adapter(path / "low", 2, seed=1), write_adapter(path / "high", 4, seed=2))


@pytest.fixture(scope="module")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> PairComparison:
    run = write_run(tmp_path_factory.mktemp("runs") / "x", "r2-s0", "r4-s0", "r2-s0-shadow1", "r4-s0-shadow1")
    return deltaw.compare(deltaw.load_arm(run, "r2-s0"), deltaw.load_arm(run, "r4-s0"))


def test_plots_are_figures_of_matplotlib(tmp_path: Path) -> None:
    comparison = folders(tmp_path)
    whole, one_layer = comparison.plot(), comparison.plot("fig3", "times-chance")
    assert isinstance(whole, Figure) and isinstance(one_layer, Figure)
    assert len(whole.axes) > len(one_layer.axes)


def test_a_run_has_figures_of_its_losses_and_of_the_control_pair(of_run: PairComparison) -> None:
    texts = [text.get_text() for text in of_run.plot("table6").findobj(Text)]
    assert texts[:6] == ["control", "$r$", "learning rate", "seeds", "loss at start", "loss"]
    rows = [["none", "2", "0.002", "1", "4.00", "3.50"], ["", "4", "0.002", "1", "4.00", "3.75"]]
    assert [texts[6:12], texts[12:18]] == rows
    shown = of_run.plot("fig6", "minus-control").axes[0].images[0].get_array()
    control = of_run.control_pairs.query("measure == 'corner' and basis == 'A'").iloc[0]
    assert np.isclose(shown[-1, -1], control.pair - control.control)


@pytest.mark.parametrize(
    ("exhibit", "variant", "error"),
    [
        ("fgi6", "", "exhibit=fgi6: did you mean fig6"),
        ("fig6", "minus-control", "variant=minus-control: fig6 of these adapters has '', 'times-chance'"),
        ("loss_by_rank", "", "judged losses are recorded in runs"),
    ],
)
def test_a_plot_that_cannot_be_made_says_why(tmp_path: Path, exhibit: str, variant: str, error: str) -> None:
    with pytest.raises(UserError, match=re.escape(error)):
        folders(tmp_path).plot(exhibit, variant)


def test_it_prints_short_names_and_where_they_lie(tmp_path: Path) -> None:
    comparison = folders(tmp_path)
    first, *lines = repr(comparison).splitlines()
    assert first.startswith("low with high at 8 sites")
    assert f"low: {tmp_path / 'low'}" in lines and f"high: {tmp_path / 'high'}" in lines
    html = comparison._repr_html_()
    assert "<b>low</b> with <b>high</b>" in html and str(tmp_path / "low") in html and "<table" in html


def test_names_are_escaped(tmp_path: Path) -> None:
    hostile = write_adapter(tmp_path / "<script>alert(1)<" / "a\u202e\x1b[0m", 2, seed=1)
    comparison = deltaw.compare(hostile, write_adapter(tmp_path / "b", 2, seed=2))
    html = comparison._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html
    for shown in (html, repr(comparison)):
        assert shown.replace("\n", "").isprintable() and r"a\u202e\x1b[0m" in shown


def test_findings_and_control_pairs_are_those_of_the_tables(of_run: PairComparison) -> None:
    assert of_run.findings[0].startswith("r2-s0 and r4-s0 learned")
    pairs = of_run.control_pairs
    assert set(pairs.measure) == {"first", "row", "corner", "k_star"} and pairs.control.notna().any()
    known = pairs.dropna(subset=["pair", "control"])
    assert np.allclose(known.excess, known.pair - known.control)


def test_arms_of_one_experiment_have_no_verdict_about_merging(tmp_path: Path, of_run: PairComparison) -> None:
    assert of_run.merging == []
    (line,) = folders(tmp_path).merging
    assert line.startswith("low + high: ")


def test_advice_prints_its_sentences_and_has_its_numbers(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    measured = {
        "r2-s0": Measured(examples.arm(1.5, 0.1, exact=True)),
        "r8-s0": Measured(uncut, cuts={4: examples.arm(0.0, 0.001, of=uncut, exact=True)}),
    }
    run = write_judged(tmp_path / "x", examples, measured)
    for name, rank in (("r2-s0", 2), ("r8-s0", 8)):
        folder = run.path / "snapshots" / name / "step-00000010"
        folder.rmdir()
        write_adapter(folder, rank, seed=rank)
    answer = deltaw.advise(run.path)
    assert answer.ship and answer.ship.ship and answer.ship.ship.cut == 4
    assert repr(answer).splitlines() == answer.sentences and answer.sentences[0].startswith("Ship r8-s0 cut to 4")
    assert answer._repr_html_().startswith("<p><b>Ship r8-s0 cut to 4")
    with pytest.raises(UserError, match="give a share between 0 and 1"):
        deltaw.advise(run.path, margin=2.0)


def test_importing_deltaw_loads_no_library() -> None:
    code = "import sys, deltaw; assert not {'torch', 'pandas', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_matplotlib_waits_for_a_plot(tmp_path: Path) -> None:
    folders(tmp_path)
    code = f"""
import sys, deltaw
comparison = deltaw.compare({str(tmp_path / "low")!r}, {str(tmp_path / "high")!r})
repr(comparison), comparison.findings
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
