"""The findings follow from the tables, whichever way they point."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from deltaw import report
from deltaw.chance import random_mean, random_sd
from deltaw.report.numbers import Summary
from deltaw.run import RunDirectory, default_pair
from deltaw.study import Pair, Source, compare, describe_pair, describe_sites
from tests.folders import write_run

WIDTH, RANK_LEFT, RANK_RIGHT = 64, 4, 8
LEFT, RIGHT = (Source(name, name, "tiny", None, None, None) for name in ("low", "high"))


def table(layers: int = 8) -> pd.DataFrame:
    """Cells at the level of chance."""
    index = pd.MultiIndex.from_product(
        [range(1, layers + 1), ["q", "v"], range(1, RANK_LEFT + 1), range(1, RANK_RIGHT + 1)],
        names=["layer", "projection", "i", "j"],
    )
    frame = index.to_frame(index=False)
    i, j = torch.tensor(frame.i.to_numpy()), torch.tensor(frame.j.to_numpy())
    mean, sd = random_mean(i, j, WIDTH).numpy(), random_sd(i, j, WIDTH).numpy()
    return frame.assign(basis="A", phi=mean, null_mean=mean, null_sd=sd)


def summarise(phi: pd.DataFrame, pair: Pair | None = None) -> Summary:
    sites = pd.DataFrame({"projection": ["q", "v", "k"], "d_in": [WIDTH, WIDTH, 7]})
    return report.summarise(phi, sites, pair or Pair(LEFT, RIGHT, None), layers=[1, int(phi.layer.max())])


def test_chance_alone_is_called_chance() -> None:
    leading, whole, _ = report.findings(summarise(table()))
    assert "no more in common than random ones at any of 16 sites: φ(1, 1) is 0.016 on average" in leading
    assert "not beyond chance at any of 16 sites" in whole


def test_a_shared_first_direction_is_called_shared_where_it_is() -> None:
    phi = table()
    phi.loc[(phi.i == 1) & (phi.layer <= 4), "phi"] = 0.9
    leading, whole, _ = report.findings(summarise(phi))
    assert (
        "have more in common than random ones at 8 of 16 sites: φ(1, 1) is 0.458 on average (0.016 to 0.900)" in leading
    )
    assert "not beyond chance at any of 16 sites; φ(i, 8) falls from" in whole
    assert "half of its lead over chance gone by i = 2" in whole


@pytest.mark.parametrize(
    ("last", "words"), [(0.3, "rises from 0.200 at i = 1 to 0.300 at i = 4"), (0.205, "hardly changes")]
)
def test_the_course_over_i_has_its_own_direction(last: float, words: str) -> None:
    phi = table()
    phi["phi"] = 0.2 + (last - 0.2) * (phi.i - 1) / 3
    assert words in report.findings(summarise(phi))[1]


@pytest.mark.parametrize(("slope", "words"), [(0.05, "rises with depth"), (-0.05, "falls with depth")])
def test_depth_has_its_own_direction(slope: float, words: str) -> None:
    phi = table()
    phi["phi"] = 0.5 + slope * phi.layer
    assert words in report.findings(summarise(phi))[2]


def test_scatter_over_depth_is_no_trend() -> None:
    phi = table()
    phi["phi"] += 0.1 * (phi.layer % 2)
    summary = summarise(phi)
    assert "shows no trend over depth" in report.findings(summary)[2]
    assert summary.depth.rho == pytest.approx(spearmanr(range(8), [1, 0] * 4).statistic)
    assert summary.depth.p is not None and 0.05 < summary.depth.p < 1


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_few_layers_cannot_be_tested(layers: int) -> None:
    summary = summarise(table(layers))
    assert f"cannot be tested with {layers} layer" in report.findings(summary)[2]
    assert (summary.depth.rho, summary.depth.p) == (None, None)


def test_a_perfect_order_of_four_layers_is_not_taken_for_certain() -> None:
    phi = table(4)
    phi["phi"] += 0.1 * phi.layer
    depth = summarise(phi).depth
    assert depth.rho == pytest.approx(1) and depth.p == pytest.approx(2 / 24)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.1, "ΔW_q lies 0.100 above ΔW_v in mean φ, being higher in 8 of 8 layers"),
        (-0.1, "ΔW_q lies 0.100 below ΔW_v in mean φ, being higher in 0 of 8 layers"),
        (0.001, "ΔW_q and ΔW_v differ by 0.001 in mean φ, ΔW_q being higher in 8 of 8 layers"),
    ],
)
def test_q_against_v_has_its_own_direction(shift: float, words: str) -> None:
    phi = table()
    phi.loc[phi.projection == "q", "phi"] += shift
    assert words in report.findings(summarise(phi))[2]


def test_what_i_and_j_alone_explain_is_no_correlation_of_q_and_v() -> None:
    phi = table()
    phi["phi"] += np.random.default_rng(0).normal(0, 0.001, len(phi))
    contrast = summarise(phi).contrast
    assert contrast.correlation is not None and contrast.correlation_beyond_chance is not None
    assert contrast.correlation > 0.99 > 0.2 > abs(contrast.correlation_beyond_chance)


def test_equal_adapters_have_nothing_to_correlate_and_no_trend() -> None:
    phi = table()
    phi["phi"] = 1 - np.random.default_rng(0).uniform(0, 1e-15, len(phi))  # as rounding leaves it
    summary = summarise(phi)
    assert summary.contrast.correlation is None
    assert "Mean φ is the same at all 8 layers" in report.findings(summary)[2]


def test_every_range_is_that_of_the_cells_drawn(tmp_path: Path) -> None:
    phi = table()
    phi["phi"] = np.random.default_rng(0).uniform(size=len(phi))
    report.write(summarise(phi), tmp_path)
    ranges = json.loads((tmp_path / "summary.json").read_text())["ranges"]
    assert [(wide["layer"], wide["projection"]) for wide, _ in ranges] == [(1, "q"), (1, "v"), (8, "q"), (8, "v")]
    for pair in ranges:
        for level, columns in zip(pair, (RANK_RIGHT, RANK_LEFT), strict=True):
            site = (phi.layer == level["layer"]) & (phi.projection == level["projection"])
            cells = phi[site & (phi.j <= columns)]
            assert level["phi"] == pytest.approx(
                {
                    "lowest": cells.phi.min(),
                    "mean": cells.phi.mean(),
                    "highest": cells.phi.max(),
                    "chance": cells.null_mean.mean(),
                }
            )
    assert f"| 1 | ΔW_q | {ranges[0][0]['phi']['lowest']:.3f} |" in (tmp_path / "summary.md").read_text()


def test_cells_without_phi_count_nowhere(tmp_path: Path) -> None:
    phi = table()
    phi.loc[phi.j == RANK_RIGHT, "phi"] = np.nan
    summary = summarise(phi)
    assert summary.undefined == 16 * RANK_LEFT
    assert "φ(4, 8) is undefined at every site" in report.findings(summary)[1]
    report.write(summary, tmp_path)
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert "64 cells are beyond the numerical rank" in (tmp_path / "summary.md").read_text()


def test_nothing_defined_is_said_and_breaks_nothing(tmp_path: Path) -> None:
    phi = table().assign(phi=np.nan)
    report.write(summarise(phi), tmp_path)
    assert "φ(1, 1) is undefined at every site" in (tmp_path / "summary.md").read_text()
    assert "NaN" not in (tmp_path / "summary.json").read_text()


def test_an_adapter_folder_is_not_said_to_be_tuned_or_not(tmp_path: Path) -> None:
    report.write(summarise(table(), Pair(LEFT, RIGHT, "two bases")), tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "How an adapter that is no arm of a run was trained is not known." in words
    assert "not tuned" not in words and "Validation loss" not in words
    assert "Warning: two bases." in words


def test_a_run_tells_its_learning_rate_losses_and_controls(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-shuffled"))
    left, right = run.adapter("r2-s0"), run.adapter("r4-s0")
    phi = compare(left, right)
    summary = report.summarise(phi, describe_sites(left, right), describe_pair(left, right), [1, 2])
    assert (summary.left.lr, summary.left.lr_tuned) == (0.002, False)
    losses = {arm.arm: (arm.start, arm.end, arm.share) for arm in summary.losses}
    assert losses["r2-s0"] == (4, 3.5, None)
    assert losses["r4-s0"] == (4, 3.75, None)
    assert losses["r4-s0-shuffled"] == pytest.approx((4, 4 - 0.5 / 3, (0.5 / 3) / 0.25))
    report.write(summary, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "Learning rate not tuned per rank." in words
    assert "| r4-s0-shuffled | shuffled | 4.0000 | 3.8333 | 67% |" in words


def test_of_several_learning_rates_the_best_is_compared_and_called_tuned(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-lr0.005", "r2-s1"))
    rows = (run.path / "metrics.csv").read_text().replace("10,r4-s0,val/loss,3.75", "10,r4-s0,val/loss,nan")
    (run.path / "metrics.csv").write_text(rows)
    assert default_pair(run, None, None) == ("r2-s0", "r4-s0-lr0.005")
    left, right = run.adapter("r2-s0"), run.adapter("r4-s0-lr0.005")
    sites, pair = describe_sites(left, right), describe_pair(left, right)
    summary = report.summarise(compare(left, right), sites, pair, [1])
    assert (summary.left.lr_tuned, summary.right.lr_tuned) == (False, True)
    assert np.isnan(next(arm.end for arm in summary.losses if arm.arm == "r4-s0"))


def test_losses_end_at_the_step_that_is_compared(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0"))
    left, right = run.adapter("r2-s0", step=0), run.adapter("r4-s0", step=0)
    sites, pair = describe_sites(left, right), describe_pair(left, right)
    assert [arm.end for arm in report.summarise(compare(left, right), sites, pair, [1]).losses] == [4, 4]
