"""The findings follow from the tables, whichever way they point."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from deltaw import report
from deltaw.analysis.compare import Comparison, compare_all
from deltaw.analysis.losses import losses_of
from deltaw.analysis.pairs import AdapterPair
from deltaw.analysis.selection import default_pair
from deltaw.exhibit.drawing import table6
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View
from deltaw.maths.random_subspaces import k_star, random_mean, random_p, random_sd
from deltaw.report.numbers import Summary
from deltaw.report.words import markdown
from deltaw.run.adapter import Adapter, Lora, Site
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_run

WIDTH, RANK_LEFT, RANK_RIGHT = 64, 4, 8
SITE = Site(1, "q", "layers.0.q_proj")
SUBJECT = AdapterPair(
    Adapter("low", Path("low"), "tiny", sites={SITE: Lora(RANK_LEFT, WIDTH, WIDTH, 1.0)}),
    Adapter("high", Path("high"), "tiny", sites={SITE: Lora(RANK_RIGHT, WIDTH, WIDTH, 1.0)}),
)


def table(layers: int = 8) -> pd.DataFrame:
    """Cells at the level of chance."""
    index = pd.MultiIndex.from_product(
        [range(1, layers + 1), ["q", "v"], range(1, RANK_LEFT + 1), range(1, RANK_RIGHT + 1)],
        names=["layer", "projection", "i", "j"],
    )
    frame = index.to_frame(index=False)
    i, j = torch.tensor(frame.i.to_numpy()), torch.tensor(frame.j.to_numpy())
    mean, sd = random_mean(i, j, WIDTH).numpy(), random_sd(i, j, WIDTH).numpy()
    return frame.assign(left="low", right="high", basis="A", phi=mean, null_mean=mean, null_sd=sd)


def pair(phi: pd.DataFrame, cos2: list[float]) -> pd.DataFrame:
    """The row of each site that belongs to its cells, with these angles."""
    rows = []
    for (layer, projection), cells in phi.groupby(["layer", "projection"]):
        row = {"left": "low", "right": "high", "layer": layer, "projection": projection, "basis": "A", "width": WIDTH}
        for name, place in (("first", (1, 1)), ("row", (1, RANK_RIGHT)), ("corner", (RANK_LEFT, RANK_RIGHT))):
            cell = cells[(cells.i == place[0]) & (cells.j == place[1])].iloc[0]
            row |= {f"phi_{name}": cell.phi, f"null_{name}": cell.null_mean, f"p_{name}": cell.p_value}
        row |= {"k_star": k_star(cos2, RANK_LEFT, RANK_RIGHT, WIDTH), "reason": None}
        row |= {"step_left": pd.NA, "step_right": pd.NA}
        rows.append(row)
    return pd.DataFrame(rows)


SITES = pd.DataFrame(
    {
        "arm": ["low", "high"],
        "step": pd.NA,
        "projection": ["q", "v"],
        "basis": "A",
        "rank": [RANK_LEFT, RANK_RIGHT],
        "numerical_rank": [RANK_LEFT, RANK_RIGHT],
        "stable_rank": 2.0,
        "entropy_rank": 3.0,
        "energy_rank": 4,
        "gaps": [[0.5] * RANK_LEFT, [0.01] + [0.5] * (RANK_RIGHT - 1)],
    }
)


def summarise(phi: pd.DataFrame, cos2: list[float] | None = None, remarks: list[str] | None = None) -> Summary:
    phi = phi.assign(p_value=random_p(phi.phi.to_numpy(), phi.i.to_numpy(), phi.j.to_numpy(), WIDTH))
    comparison = Comparison(phi, pair(phi, cos2 or [0.1] * RANK_LEFT), SITES, remarks or [])
    tables = Tables(phi, comparison, losses_of([]), pd.DataFrame())
    view = View(SUBJECT, "A", ["q", "v"], layers=[1, int(phi.layer.max())], middle=1, left_out=[])
    return report.summarise(tables, view, ["fig6"])


def summarise_run(left: Adapter, right: Adapter, layers: list[int]) -> Summary:
    subject = AdapterPair(left, right)
    comparison = compare_all([subject.pairing, *subject.controls()], ["all"])
    tables = Tables(comparison.phi, comparison, subject.losses, pd.DataFrame())
    return report.summarise(tables, View(subject, "A", ["q", "v"], layers, layers[0], left_out=[]), [])


def test_nothing_beyond_chance_is_reported_as_such() -> None:
    verdict = report.findings(summarise(table()))[0]
    assert verdict == ("Nothing beyond chance: low and high share no direction beyond random subspaces in the basis A.")


def test_shared_directions_are_counted_and_not_attributed_to_the_task(tmp_path: Path) -> None:
    summary = summarise(table(), [0.9, 0.8, 0.1, 0.1])
    assert report.findings(summary)[0] == (
        "Directions of low and high are shared beyond random subspaces; whether the task or the inputs cause it cannot "
        "yet be told. Directions shared per site by k_star, on average: 2.0 in the basis A (found at 16 of 16 sites)."
    )
    report.write(summary, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "Arms that read the same inputs share directions for this reason alone, whatever they learned." in words
    assert "beyond the inputs" not in words


def test_near_equal_singular_values_and_remarks_are_reported(tmp_path: Path) -> None:
    report.write(summarise(table(), remarks=["two bases"]), tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "The first two singular values lie within 5 % of each other for high in the basis A at 1 of 1 sites" in words
    assert "- two bases." in words


def test_chance_alone_is_called_chance() -> None:
    _, leading, whole = report.findings(summarise(table()))
    assert (
        "no more in common than random directions at any of 16 sites: φ(1, 1) in the basis A is 0.016 on average"
        in leading
    )
    assert "It is not beyond random subspaces at any of 16 sites." in whole


def test_a_shared_first_direction_is_called_shared_where_it_is() -> None:
    phi = table()
    phi.loc[(phi.i == 1) & (phi.layer <= 4), "phi"] = 0.9
    _, leading, whole = report.findings(summarise(phi))
    assert (
        "have more in common than random directions at 8 of 16 sites: φ(1, 1) in the basis A is 0.458 on average "
        "(from 0.016 to 0.900), and 0.016 for random subspaces." in leading
    )
    assert "It is not beyond random subspaces at any of 16 sites. φ(i, 8) falls from" in whole
    assert "half of its lead over chance is gone by i = 2" in whole


@pytest.mark.parametrize(
    ("last", "words"), [(0.6, "rises from 0.500 at i = 1 to 0.600 at i = 4"), (0.505, "hardly changes")]
)
def test_the_course_over_i_has_its_own_direction(last: float, words: str) -> None:
    phi = table()
    phi["phi"] = 0.5 + (last - 0.5) * (phi.i - 1) / 3
    assert words in report.findings(summarise(phi))[2]


def test_chance_alone_has_no_course() -> None:
    assert "φ(i, 8)" not in report.findings(summarise(table()))[2]


def test_phi_beyond_chance_is_not_called_nothing_where_k_star_finds_no_direction() -> None:
    phi = table()
    phi.loc[phi.i == 1, "phi"] = 0.9
    assert report.findings(summarise(phi))[0] == (
        "k_star finds no direction that low and high share in the basis A; φ(1, 1) or φ of the whole spans is beyond "
        "random subspaces at some sites."
    )


@pytest.mark.parametrize("slope", [0.05, -0.05, 0.0])
def test_depth_is_a_number_and_no_finding(slope: float) -> None:
    phi = table()
    phi["phi"] += 0.1 * (phi.layer % 2) + slope * phi.layer
    summary = summarise(phi)
    expected = spearmanr(range(8), [0.1 * (layer % 2) + slope * layer for layer in range(1, 9)]).statistic
    assert summary.depth.rho == pytest.approx(expected)
    assert f"No trend over depth can be concluded: Spearman's ρ of mean φ against layer is {expected:.2f}".replace(
        "-", "−"
    ) in markdown(summary)
    assert not any("depth" in finding for finding in report.findings(summary))


@pytest.mark.parametrize(("layers", "words"), [(1, "1 layer cannot"), (2, "2 layers cannot"), (4, "4 layers cannot")])
def test_few_layers_show_no_trend(layers: int, words: str) -> None:
    phi = table(layers)
    phi["phi"] += 0.1 * phi.layer
    summary = summarise(phi)
    assert f"{words} show a trend over depth." in markdown(summary)
    assert summary.depth.rho is None


@pytest.mark.parametrize(
    ("shift", "words"),
    [(0.1, "0.100; it is positive in 8 of 8 layers"), (-0.1, "−0.100; it is positive in 0 of 8 layers")],
)
def test_q_against_v_is_a_number_and_no_finding(shift: float, words: str) -> None:
    phi = table()
    phi.loc[phi.projection == "q", "phi"] += shift
    summary = summarise(phi)
    assert f"Mean φ − chance of ΔW_q minus mean φ − chance of ΔW_v is {words}" in markdown(summary)
    assert not any("ΔW" in finding for finding in report.findings(summary))


def test_what_i_and_j_alone_explain_is_no_correlation_of_q_and_v() -> None:
    phi = table()
    phi["phi"] += np.random.default_rng(0).normal(0, 0.001, len(phi))
    contrast = summarise(phi).contrast
    assert contrast is not None and contrast.correlation is not None and contrast.correlation_beyond_chance is not None
    assert contrast.correlation > 0.99 > 0.2 > abs(contrast.correlation_beyond_chance)


def test_equal_adapters_have_nothing_to_correlate_and_no_trend() -> None:
    phi = table()
    phi["phi"] = 1 - np.random.default_rng(0).uniform(0, 1e-15, len(phi))  # as rounding leaves it
    summary = summarise(phi)
    assert summary.contrast is not None and summary.contrast.correlation is None
    assert "Mean φ is the same at all 8 layers" in markdown(summary)


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
    assert "φ(i, 8)" not in report.findings(summary)[2]
    report.write(summary, tmp_path)
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert "64 cells are beyond the numerical rank" in (tmp_path / "summary.md").read_text()


def test_a_summary_without_any_defined_number_can_be_written(tmp_path: Path) -> None:
    phi = table().assign(phi=np.nan)
    report.write(summarise(phi), tmp_path)
    assert "φ(1, 1) is undefined at every site" in (tmp_path / "summary.md").read_text()
    assert "NaN" not in (tmp_path / "summary.json").read_text()


def test_of_an_adapter_folder_no_learning_rate_is_reported(tmp_path: Path) -> None:
    report.write(summarise(table()), tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "It is not known how an adapter outside of a run was trained." in words
    assert "not tuned" not in words and "## Validation" not in words


def test_the_learning_rate_losses_and_controls_of_a_run_are_reported(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-shuffled"))
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1, 2])
    assert (summary.left.lr, summary.left.lr_tuned) == (0.002, False)
    losses = {arm["arm"]: (arm["start"], arm["end"], arm["share"]) for arm in summary.losses}
    assert losses["r2-s0"] == (4, 3.5, None)
    assert losses["r4-s0"] == (4, 3.75, None)
    assert losses["r4-s0-shuffled"] == pytest.approx((4, 4 - 0.5 / 3, (0.5 / 3) / 0.25))
    (control,) = summary.controls
    assert (control.name, control.control, control.share) == ("r4-s0-shuffled", "shuffled", pytest.approx(2 / 3))
    assert [levels.basis for levels in control.levels] == ["A", "update", "input", "output"]
    assert report.findings(summary)[-1].startswith(
        "Without the pairing of prompt and completion, r4-s0-shuffled reaches 67% of the gain in validation loss. "
        f"Its φ(1, 1) with r2-s0 is {control.levels[0].first.phi:.3f} in the basis A "
        f"({summary.levels[0].first.phi:.3f} for r4-s0); "
    )
    report.write(summary, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "The learning rate is not tuned per rank." in words
    assert "| r4-s0-shuffled | shuffled | 4.00 | 3.83 | 67% |" in words
    assert "| r4-s0-shuffled | 67% | update |" in words


def test_a_classification_is_reported_per_row_with_its_metrics(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-shuffled"))
    (run.path / "run.json").write_text(json.dumps(asdict(run.record) | {"task": "classification"}))
    with (run.path / "metrics.csv").open("a") as file:
        file.writelines(
            f"{step},{arm},val/f1,{step / 20 + rank / 100}\n"
            for step in (0, 10)
            for rank, arm in ((2, "r2-s0"), (4, "r4-s0"))
        )
    run = RunDirectory(run.path)
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1])
    assert [(arm["unit"], arm["f1"], "accuracy" in arm) for arm in summary.losses] == [
        ("row", 0.52, False),
        ("row", 0.54, False),
        ("row", None, False),
    ]
    assert report.findings(summary)[-1].startswith("Without the pairing of text and label, r4-s0-shuffled reaches")
    report.write(summary, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "Loss, in nats, and accuracy are per row." in words
    assert "| arm | control | loss at start | loss | F1 | share of the task's gain |" in words
    assert "| r4-s0 |  | 4.00 | 3.75 | 0.54 |  |" in words


def test_a_control_that_gains_nothing_has_no_share(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-random"))
    rows = (
        (run.path / "metrics.csv").read_text().replace("10,r4-s0-random,val/loss,3.8", "10,r4-s0-random,val/loss,8.8")
    )
    (run.path / "metrics.csv").write_text(rows)
    finding = report.findings(summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1]))[-1]
    assert "r4-s0-random gains nothing in validation loss" in finding and "%" not in finding


def test_of_several_learning_rates_the_best_is_compared_and_called_tuned(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-lr0.005", "r2-s1"))
    rows = (run.path / "metrics.csv").read_text().replace("10,r4-s0,val/loss,3.75", "10,r4-s0,val/loss,nan")
    (run.path / "metrics.csv").write_text(rows)
    assert default_pair(run, None, None) == ("r2-s0", "r4-s0-lr0.005")
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0-lr0.005"), [1])
    assert (summary.left.lr_tuned, summary.right.lr_tuned) == (False, True)
    assert next(arm["end"] for arm in summary.losses if arm["arm"] == "r4-s0") is None
    report.write(summary, tmp_path)
    assert "| r4-s0 |  | 4.00 | diverged |  |" in (tmp_path / "summary.md").read_text()


def test_arms_that_differ_in_alpha_are_neither_seeds_nor_controls_of_one_another(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r4-s0", "r4-s0-a32", "r4-s0-a32-shuffled", "r4-s1-a32"))
    plain, other = run.adapter("r4-s0"), run.adapter("r4-s0-a32")
    assert [pairing.right.name for pairing in AdapterPair(plain, other).controls()] == ["r4-s0-a32-shuffled"]
    assert AdapterPair(other, plain).controls() == []
    assert AdapterPair(plain, other).two_seeds().right.name == "r4-s1-a32"
    losses = losses_of([plain])
    assert losses.share.dropna().tolist() == [pytest.approx((0.5 / 3) / 0.25)]
    rows = [(row.control, row.variant, row.seeds) for row in table6.summarise(losses, ["end"]).itertuples()]
    assert rows == [("", "", 1), ("", "a32", 2), ("shuffled", "a32", 1)]
    assert "a32" in [text.get_text() for text in table6.draw(losses).axes[0].texts]


def test_arms_of_runs_with_another_alpha_are_no_seeds_of_one_another(tmp_path: Path) -> None:
    runs = [RunDirectory(write_run(tmp_path / name, "r4-s0")) for name in ("one", "two")]
    record = json.loads((tmp_path / "two/run.json").read_text())
    record["arms"][0]["alpha"] = 32.0
    (tmp_path / "two/run.json").write_text(json.dumps(record))
    table = table6.summarise(losses_of([run.adapter("r4-s0") for run in runs]), ["end"])
    assert list(zip(table.variant, table.seeds, strict=True)) == [("a16-alpha/r", 1), ("a32-alpha/r", 1)]


def test_losses_end_at_the_step_that_is_compared(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0"))
    left, right = run.adapter("r2-s0", step=0), run.adapter("r4-s0", step=0)
    assert losses_of([left, right]).end.tolist() == [4, 4]
