"""The figure of losses by rank, read back from its artists, and the numbers in it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deltaw.advice.advise import advice_of
from deltaw.advice.by_rank import COLUMNS, judged_in, losses_by_rank
from deltaw.errors import UserError
from deltaw.exhibit.drawing.loss_by_rank import draw
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_run
from tests.support.judged import Examples, Measured, write_judged


def run(path: Path) -> tuple[Examples, RunDirectory]:
    examples = Examples()
    uncut = examples.arm(2.0, exact=True)
    cuts = {cut: examples.arm(-0.4 / cut, 0.1, of=uncut, exact=True) for cut in (4, 2)}
    arms = {
        "r2-s0": Measured(examples.arm(1.4, exact=True)),
        "r2-s1": Measured(examples.arm(1.6, exact=True)),
        "r8-s0": Measured(uncut, cuts=cuts),
        "r8-s0-shuffled": Measured(examples.arm(0.5, exact=True)),
    }
    return examples, write_judged(path / "x", examples, arms)


def test_rows_are_means_per_label_and_cuts_have_an_interval(tmp_path: Path) -> None:
    examples, made = run(tmp_path)
    table = losses_by_rank(judged_in([made]))
    assert list(table) == list(COLUMNS)
    base = examples.base.sum() / examples.labels.sum()
    found = {(kind, arm, rank): loss for kind, arm, rank, loss in table[["kind", "arm", "rank", "loss"]].to_numpy()}
    assert found == {
        ("base", "", 0): pytest.approx(base),
        ("arm", "r2-s0", 2): pytest.approx(base - 1.4),
        ("arm", "r2-s1", 2): pytest.approx(base - 1.6),
        ("arm", "r8-s0", 8): pytest.approx(base - 2),
        ("cut", "r8-s0", 2): pytest.approx(base - 1.8),
        ("cut", "r8-s0", 4): pytest.approx(base - 1.9),
        ("shuffled", "", 8): pytest.approx(base - 0.5),
    }
    cuts = table[table.kind == "cut"]
    assert np.allclose(cuts.high - cuts.loss, cuts.loss - cuts.low)
    assert (cuts.high - cuts.loss).between(0.005, 0.03).all()  # 2 · 0.1/√400, weighted
    assert table[table.kind != "cut"][["low", "high"]].isna().all(axis=None)


def test_the_cuts_are_those_of_the_advice_whichever_arm_validates_best(tmp_path: Path) -> None:
    examples = Examples()
    arms = {f"r{rank}-s0": Measured(examples.arm(gain), loss) for rank, gain, loss in ((2, 1.6, 0.7), (8, 1.5, 0.8))}
    for arm in arms.values():
        arm.cuts = {1: examples.arm(-0.1, of=arm.uncut)}
    runs = [write_judged(tmp_path / name, examples, {name: arm}) for name, arm in arms.items()]  # as a sweep makes them
    table = losses_by_rank(judged_in(runs))
    advice = advice_of(runs, margin=0.01)
    assert advice.ship is not None
    assert list(table[table.kind == "cut"].arm) == [advice.ship.arm] == ["r8-s0"]


def test_a_control_is_one_row_of_the_best_recipe_of_its_largest_rank(tmp_path: Path) -> None:
    examples = Examples()
    gains = {"r2-s0-random": 0.9, "r8-s0-random": 0.3, "r8-s1-random": 0.5, "r8-s0-lr0.1-random": 0.1}
    arms = {name: Measured(examples.arm(gain, exact=True), 4 - gain) for name, gain in gains.items()}
    made = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.arm(1.0))} | arms)
    table = losses_by_rank(judged_in([made]))
    (control,) = table[table.kind == "random"].itertuples()
    assert (control.rank, control.loss) == (8, pytest.approx(examples.base.sum() / examples.labels.sum() - 0.4))


def test_the_figure_shows_means_intervals_and_lines(tmp_path: Path) -> None:
    _, made = run(tmp_path)
    table = losses_by_rank(judged_in([made]))
    figure = draw(table, "token", 400, [10])
    whole, zoomed = figure.axes
    assert whole.get_ylabel() == "judged loss (nats per token)"
    assert whole.get_xscale() == "log" and [text.get_text() for text in whole.get_xticklabels()] == ["2", "4", "8"]
    labels = whole.get_legend_handles_labels()[1]
    assert set(labels) == {"base", "control shuffled, r=8", "trained at this rank", "r8-s0 cut to this rank"}
    arms = table[table.kind == "arm"].groupby("rank").loss.mean()
    assert np.allclose(zoomed.lines[0].get_xydata(), np.stack([arms.index, arms], axis=1))
    base = table.loc[table.kind == "base", "loss"].item()
    assert zoomed.get_ylim()[1] < base < whole.get_ylim()[1]


def test_one_arm_without_cuts_can_be_drawn() -> None:
    rows = [("base", "", 0, 3.0), ("arm", "r1-s0", 1, 2.0)]
    table = pd.DataFrame(rows, columns=["kind", "arm", "rank", "loss"]).assign(low=np.nan, high=np.nan)
    figure = draw(table, "row", 10)
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1"]


def test_a_run_without_judged_losses_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x has no judged losses"):
        judged_in([RunDirectory(write_run(tmp_path / "x", "r2-s0", "r4-s0"))])
