"""The summary as Markdown and JSON: what stands in its tables and caveats."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from deltaw import report
from deltaw.analysis.against_base import against_base
from deltaw.analysis.bases import BASES
from deltaw.analysis.pairs import with_distinct_names
from deltaw.analysis.selection import default_pair
from deltaw.exhibit.drawing import fig8, table7
from deltaw.report.words import markdown
from deltaw.run.adapter import load_adapter
from deltaw.run.directory import RunDirectory
from tests.support.folders import WIDTH, write_adapter, write_evaluation, write_run
from tests.support.summaries import RANK_LEFT, RANK_RIGHT, cells, excess_table, summarise, summarise_run


def section(words: str, title: str) -> str:
    return words.partition(f"## {title}")[2].partition("\n## ")[0]


def rows(words: str) -> list[list[str]]:
    """Of the only table, without its head."""
    lines = [line for line in words.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_control_pair_has_a_row_for_every_basis_and_measure(tmp_path: Path) -> None:
    names = [f"r{rank}-s{seed}{shadow}" for seed in range(3) for rank in (2, 4) for shadow in ("", "-shadow1")]
    run = RunDirectory(write_run(tmp_path / "run", *names))
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1])
    table = section(markdown(summary), "Beside the control pair")
    found = rows(table)
    assert {(row[0], row[1]) for row in found} == {
        (basis, measure) for basis in BASES for measure in ("φ(1, 1)", "φ(1, r)", "φ(r, r′)", "k_star")
    }
    assert len(found) == len(summary.excess) == 16
    assert all(all(row[:8]) and "±" in row[7] for row in found)
    assert {(row[0], row[1]) for row in found if row[8]} == {
        (basis, measure) for basis in ("A", "update", "output") for measure in ("φ(1, 1)", "φ(r, r′)")
    }
    assert "over 3 seeds" in table


def test_without_floor_and_ceiling_there_is_no_table_beside_the_control_pair(tmp_path: Path) -> None:
    assert "## Beside the control pair" not in markdown(summarise(cells()))
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r2-s1"))
    of_seeds = rows(section(markdown(summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1])), "Beside the"))
    assert all(row[2] and row[6] and not any(row[3:6] + row[7:]) for row in of_seeds)


def test_one_seed_has_no_error_and_no_p() -> None:
    found = rows(section(markdown(summarise(cells(), excess=excess_table(1))), "Beside the control pair"))
    assert all("±" not in row[7] and row[7] and not row[8] for row in found)


@pytest.mark.parametrize(
    ("layers", "seeds", "words"),
    [(8, 3, "A trend over depth is not resolved"), (2, 3, "2 layers cannot"), (4, 1, "and one seed is no test.")],
)
def test_depth_and_projections_are_sentences_beside_the_tables(layers: int, seeds: int, words: str) -> None:
    summary = summarise(cells(), excess=excess_table(seeds, layers))
    text = section(markdown(summary), "φ by depth, and one matrix against the other")
    assert words in text and "ΔW_q minus ΔW_v, is 0.000 (0.000 minus 0.000 of the control pair)" in text
    assert not any("depth" in finding or "ΔW_q" in finding for finding in report.findings(summary))


def test_near_equal_singular_values_and_remarks_are_reported(tmp_path: Path) -> None:
    report.write(summarise(cells(), remarks=["two bases"]), None, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "The first two singular values lie within 5 % of each other for high in the basis A at 1 of 1 sites" in words
    assert words.index("- two bases.") < words.index("## Findings")


def test_ranks_of_a_pattern_are_shown_as_they_are(tmp_path: Path) -> None:
    left = write_adapter(tmp_path / "pattern", rank=2, layers=2)
    tensors = load_file(left / "adapter_model.safetensors")
    wider = load_file(write_adapter(tmp_path / "wider", rank=5, layers=2, seed=1) / "adapter_model.safetensors")
    tensors |= {name: tensor for name, tensor in wider.items() if "v_proj" in name}
    save_file(tensors, left / "adapter_model.safetensors")
    text = markdown(summarise_run(load_adapter(left), load_adapter(tmp_path / "wider"), [1]))
    assert text.startswith("# φ(A_{r=2 to 5}, A_{r=5}, i, j): ")
    assert "| rank | 2 to 5 | 5 |" in text and "φ(1, 5)" in text and "φ(r, 5)" in text


def test_random_subspaces_are_called_the_weakest_level() -> None:
    assert "arms that read the same inputs share directions for this reason alone" in markdown(summarise(cells()))


def test_every_range_is_that_of_the_cells_drawn(tmp_path: Path) -> None:
    phi = cells()
    phi["phi"] = np.random.default_rng(0).uniform(size=len(phi))
    report.write(summarise(phi), None, tmp_path)
    ranges = json.loads((tmp_path / "summary.json").read_text())["ranges"]
    assert [(wide["layer"], wide["projection"]) for wide, _ in ranges] == [(1, "q"), (1, "v"), (8, "q"), (8, "v")]
    for pair in ranges:
        for level, columns in zip(pair, (RANK_RIGHT, RANK_LEFT), strict=True):
            site = (phi.layer == level["layer"]) & (phi.projection == level["projection"])
            drawn = phi[site & (phi.j <= columns)]
            assert level["phi"] == pytest.approx(
                {
                    "lowest": drawn.phi.min(),
                    "mean": drawn.phi.mean(),
                    "highest": drawn.phi.max(),
                    "chance": drawn.null_mean.mean(),
                }
            )
    assert f"| 1 | ΔW_q | {ranges[0][0]['phi']['lowest']:.3f} |" in (tmp_path / "summary.md").read_text()


def test_cells_without_phi_count_nowhere(tmp_path: Path) -> None:
    phi = cells()
    phi.loc[phi.j == RANK_RIGHT, "phi"] = np.nan
    summary = summarise(phi)
    assert summary.undefined == 16 * RANK_LEFT and summary.by_i == []
    report.write(summary, None, tmp_path)
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert "64 cells are beyond the numerical rank" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("excess", [excess_table(3).assign(pair=np.nan, control=np.nan, excess=np.nan), None])
def test_a_summary_without_any_defined_number_can_be_written(tmp_path: Path, excess: pd.DataFrame | None) -> None:
    report.write(summarise(cells().assign(phi=np.nan), excess=excess), None, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "In the basis A: No site has directions in this basis.\n" in words
    assert "nan" not in words and "NaN" not in (tmp_path / "summary.json").read_text()


def test_two_steps_of_an_arm_are_compared_once(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r2-s0-shadow1", "r2-s1", "r2-s1-shadow1"))
    summary = summarise_run(*with_distinct_names(run.adapter("r2-s0", 0), run.adapter("r2-s0", 10)), [1])
    assert [(levels.basis, levels.sites) for levels in summary.levels] == [("A", 8)]
    assert {one.seeds for one in summary.excess} == {1} and summary.one_order
    assert [one.arm for one in summary.learning] == ["r2-s0@0", "r2-s0@10"]
    table = section(markdown(summary), "Beside the control pair")
    assert "over one seed" in table and all(row[3] for row in rows(table))


def test_the_order_of_examples_is_told_beside_the_control_pair(tmp_path: Path) -> None:
    names = [f"r{rank}-s{seed}{shadow}" for seed in range(2) for rank in (2, 4) for shadow in ("", "-shadow1")]
    for seeds, words in ((1, "Both arms took their examples in the same order"), (2, "with right arms of other seeds")):
        run = RunDirectory(write_run(tmp_path / str(seeds), *names[: 4 * seeds]))
        table = section(markdown(summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1])), "Beside the")
        assert words in table


@pytest.mark.parametrize("step", [0, 10])
def test_a_summary_of_a_run_at_any_step_can_be_written(tmp_path: Path, step: int) -> None:
    names = [f"r{rank}-s{seed}{shadow}" for seed in range(3) for rank in (2, 4) for shadow in ("", "-shadow1")]
    run = RunDirectory(write_run(tmp_path / "run", *names))
    report.write(summarise_run(run.adapter("r2-s0", step), run.adapter("r4-s0", step), [1, 4]), None, tmp_path)
    words, numbers = ((tmp_path / f"summary.{kind}").read_text() for kind in ("md", "json"))
    assert "nan" not in words and "None" not in words and "NaN" not in numbers


@pytest.mark.parametrize("B", [0.0, 1.0])
def test_table_7_and_figure_8_of_an_update_of_zero_can_be_drawn(tmp_path: Path, B: float) -> None:
    arm = load_adapter(write_adapter(tmp_path / "arm", rank=3, B=B))
    site = next(iter(arm.sites))
    W = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))
    phi, amplification = against_base(site, W, [arm])
    table7.draw(amplification)
    fig8.draw({"r=3": phi[phi.right == arm.name]}, layer=site.layer)
    summary = summarise(cells(), amplification=amplification)
    (row,) = rows(section(markdown(summary), "Against W"))
    assert row[:2] == ["1", "ΔW_q"] and "nan" not in row
    assert [bool(cell) for cell in row[-2:]] == [bool(B)] * 2  # the two amplifications


def test_of_an_adapter_folder_no_learning_rate_is_reported(tmp_path: Path) -> None:
    report.write(summarise(cells()), None, tmp_path)
    words = (tmp_path / "summary.md").read_text()
    assert "It is not known how an adapter outside of a run was trained." in words
    assert "not tuned" not in words and "## Validation" not in words


def test_a_loss_is_printed_with_its_standard_error_where_that_is_recorded(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0"))
    left, right = run.adapter("r2-s0"), run.adapter("r4-s0")
    without = markdown(summarise_run(left, right, [1, 2]))
    assert "| r2-s0 |  | 4.00 | 3.50 |" in without and "validation examples is not recorded" in without
    ends = {"r2-s0": [6.9, 7.1, 7.0], "r4-s0": [7.5, 7.5 - 1e-3, 7.5]}
    write_evaluation(run.path, {(arm, 10): losses for arm, losses in ends.items()}, labels=[2, 2, 2])
    words = markdown(summarise_run(left, right, [1, 2]))
    assert "| 4.00 | 3.50 ± 0.03 |" in words and "| 4.00 | 3.7500 ± 0.0002 |" in words
    assert "not recorded" not in section(words, "Validation")


def test_the_learning_rate_losses_and_controls_of_a_run_are_reported(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-shuffled"))
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1, 2])
    assert (summary.left.lr, summary.left.lr_tuned) == (0.002, False)
    losses = {arm["arm"]: (arm["start"], arm["end"], arm["share"]) for arm in summary.losses}
    assert losses["r2-s0"] == (4, 3.5, None)
    assert losses["r4-s0"] == (4, 3.75, None)
    assert losses["r4-s0-shuffled"] == pytest.approx((4, 4 - 0.5 / 3, (0.5 / 3) / 0.25))
    (control,) = summary.controls
    assert (control.name, control.control, control.rose) == ("r4-s0-shuffled", "shuffled", False)
    assert control.share == pytest.approx(2 / 3)
    assert [levels.basis for levels in control.levels] == list(BASES)
    words = markdown(summary)
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
    words = markdown(summary)
    assert "fell by 0.50 and 0.25 nats a row" in words
    assert "Loss, in nats, and accuracy are per row." in words
    assert "| arm | control | loss at start | loss | F1 | share of the task's gain |" in words
    assert "| r4-s0 |  | 4.00 | 3.75 | 0.54 |  |" in words


@pytest.mark.parametrize("end", ["8.8", "nan"])
def test_a_control_whose_loss_rose_or_diverged_supports_no_verdict(tmp_path: Path, end: str) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-random"))
    lines = (run.path / "metrics.csv").read_text().splitlines()[:-1]
    (run.path / "metrics.csv").write_text("\n".join([*lines, f"10,r4-s0-random,val/loss,{end}"]) + "\n")
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1])
    assert [(control.name, control.rose) for control in summary.controls] == [("r4-s0-random", True)]
    assert report.findings(summary)[-1].startswith("The validation loss of r4-s0-random rose above the base's")
    share = section(markdown(summary), "Controls")
    assert ("| r4-s0-random | none | A |" in share) == (end != "nan")


def test_of_several_learning_rates_the_best_is_compared_and_called_tuned(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r4-s0", "r4-s0-lr0.005", "r2-s1"))
    text = (run.path / "metrics.csv").read_text().replace("10,r4-s0,val/loss,3.75", "10,r4-s0,val/loss,nan")
    (run.path / "metrics.csv").write_text(text)
    assert default_pair([run], None, None) == ("r2-s0", "r4-s0-lr0.005")
    summary = summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0-lr0.005"), [1])
    assert (summary.left.lr_tuned, summary.right.lr_tuned) == (False, True)
    assert next(arm["end"] for arm in summary.losses if arm["arm"] == "r4-s0") is None
    assert "| r4-s0 |  | 4.00 | diverged |  |" in markdown(summary)
