"""All exhibits, and each but Figure 6 by itself, read back from their artists."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from deltaw.exhibit.drawing import evolution, fig3, fig4, fig6, fig7, fig8, table6, table7
from deltaw.exhibit.drawing.files import DPI, save
from deltaw.exhibit.drawing.panel import ticks
from deltaw.exhibit.drawing.scale import MINUS_CONTROL, PAPER, SCALES, TIMES_CHANCE, Scale
from tests.support.tables import amplification, losses, pairs, phi

GRIDS: dict[str, Callable[[int, int, Scale, Sequence[str]], Figure]] = {
    "fig3": lambda left, right, scale, names: fig3.draw(phi(left, right, [48], names), 48, scale),
    "fig4": lambda left, right, scale, names: fig4.draw(
        phi(left, right, [96], names, basis="output"), phi(left, right, [96], "q"), 96, scale
    ),
    "fig6": lambda left, right, scale, names: fig6.draw(
        phi(left, right, [1, 96], names, basis="update"), [1, 96], scale
    ),
    "fig7": lambda left, right, scale, names: fig7.draw(phi(left, right, [1, 64, 96], names), [1, 64, 96], scale),
    "fig8": lambda left, right, scale, names: fig8.draw(
        {
            label: phi(100, rank, [96], names[:1], basis="update", first_i=1100)
            for label, rank in {f"r={left}": left, f"r={right}": right, "r=128": 128, "random": right}.items()
        },
        96,
        scale,
    ),
}
FIGURES: dict[str, Callable[[int, int, Sequence[str]], Figure]] = {
    "table6": lambda left, right, _: table6.draw(
        losses(
            {(control, rank, 0.0125): [1.0, 1.1] for control in (None, "shuffled") for rank in (left, right)},
            *("accuracy", "exact_match", "f1", "matthews"),
        )
    ),
    "table7": lambda left, right, names: table7.draw(amplification([left, right], [1, 96], names)),
    "evolution": lambda left, right, names: evolution.draw(
        pairs([left, right], list(range(1, 97)), names, last=100_000, basis="output")
    ),
}
PATHS = [f"{stack}.block.layer.SelfAttention.q" for stack in ("encoder", "decoder")]
SEVEN = ["q", "k", "v", "o", "down_proj", "gate_proj", "up_proj"]
PROJECTIONS = [["o"], SEVEN, ["q", "k", "v"], ["gate_proj", "up_proj"], PATHS, ["q", "query_key_value", PATHS[0]]]
RANKS = [(8, 64), (4, 16), (64, 64), (1, 64), (2, 8), (1, 1), (64, 8), (20, 20), (11, 12), (128, 128)]


def texts(figure: Figure) -> list[Text]:
    """All that can be read, after the figure has been laid out as in its files."""
    figure.dpi = DPI
    figure.draw_without_rendering()
    shown = (text for text in figure.findobj(Text) if text.axes is None or text.axes.get_visible())
    return [text for text in shown if text.get_visible() and text.get_text()]


def note(figure: Figure) -> str:
    return figure.texts[2].get_text().replace("\n", " ")


def assert_all_can_be_read(figure: Figure) -> None:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    outside = [text for text, box in boxes if figure.bbox.count_contains(box.get_points()) != 2]
    touching = [(a, b) for (a, box_a), (b, box_b) in combinations(boxes, 2) if box_a.overlaps(box_b)]
    assert boxes and not outside and not touching


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", GRIDS)
def test_no_two_texts_of_a_grid_touch_and_all_are_on_the_page(name: str, ranks: tuple[int, int]) -> None:
    assert_all_can_be_read(GRIDS[name](*ranks, PAPER, "qv"))


@pytest.mark.parametrize("scale", [TIMES_CHANCE, MINUS_CONTROL], ids=lambda scale: scale.label)
@pytest.mark.parametrize("name", GRIDS)
def test_the_variants_leave_room_for_their_titles_notes_and_bars(name: str, scale: Scale) -> None:
    assert_all_can_be_read(GRIDS[name](8, 64, scale, "qv"))


@pytest.mark.parametrize("name", GRIDS)
def test_no_two_variants_have_one_title(name: str) -> None:
    assert len({GRIDS[name](2, 4, scale, "qv").get_suptitle() for scale in SCALES.values()}) == len(SCALES)


@pytest.mark.parametrize("names", PROJECTIONS, ids=str)
@pytest.mark.parametrize("name", GRIDS)
def test_grids_can_be_read_with_other_projections(name: str, names: list[str]) -> None:
    for ranks, scale in (((8, 64), TIMES_CHANCE), ((128, 128), PAPER), ((128, 128), MINUS_CONTROL)):
        assert_all_can_be_read(GRIDS[name](*ranks, scale, names))


@pytest.mark.parametrize("names", PROJECTIONS, ids=str)
@pytest.mark.parametrize("name", FIGURES)
def test_other_exhibits_can_be_read_with_other_projections(name: str, names: list[str]) -> None:
    assert_all_can_be_read(FIGURES[name](8, 64, names))


@pytest.mark.parametrize("ranks", RANKS[:3])
@pytest.mark.parametrize("name", FIGURES)
def test_no_two_texts_of_other_exhibits_touch_and_all_are_on_the_page(name: str, ranks: tuple[int, int]) -> None:
    assert_all_can_be_read(FIGURES[name](*ranks, "qv"))


def test_long_names_of_arms_stay_on_the_page() -> None:
    for name in (
        "bundled-calls-r8-s0_r64-s0/r64-s0-lr0.005-shuffled",
        "/home/someone/adapters/of-" + 12 * "a-long-name",
    ):
        for names in ("qv", "o"):
            table = phi(64, 64, [1], names, basis="output").assign(left=name + "-0", right=name + "-1")
            assert_all_can_be_read(fig6.draw(table, [1]))
            assert_all_can_be_read(fig7.draw(table, [1]))
        assert_all_can_be_read(table7.draw(amplification([4], [1]).assign(arm=name)))
        table = pairs([8, 64], [1, 2])
        assert_all_can_be_read(evolution.draw(table.assign(left=name + table.left)))


@pytest.mark.parametrize("arms", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["r8", "r64-s0-lr0.005-own"])
def test_the_legend_of_evolution_has_room_for_many_arms(arms: int, name: str) -> None:
    table = pairs([8], [1])
    assert_all_can_be_read(evolution.draw(pd.concat(table.assign(left=f"{name}-{n}") for n in range(arms))))


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_as_wide_as_the_text_of_a_paper(name: str) -> None:
    for ranks in ((8, 64), (64, 8)):
        assert GRIDS[name](*ranks, PAPER, "qv").get_figwidth() == pytest.approx(7)


@pytest.mark.parametrize("name", [*GRIDS, *FIGURES])
def test_the_files_are_the_same_each_time_and_the_pdf_has_real_text(name: str, tmp_path: Path) -> None:
    names = ["q", "gate_proj", *PATHS]
    for stem in ("once", "again"):
        save(GRIDS[name](2, 4, PAPER, names) if name in GRIDS else FIGURES[name](2, 4, names), tmp_path / stem)
    for suffix in (".png", ".pdf"):
        once, again = ((tmp_path / stem).with_suffix(suffix).read_bytes() for stem in ("once", "again"))
        assert once == again
    assert b"/FontFile2" in once and b"/Type3" not in once


def values(axes: Axes) -> np.ndarray:
    return np.ma.asarray(axes.images[0].get_array()).filled(np.nan)


def matrix(table: pd.DataFrame) -> np.ndarray:
    return table.pivot(index="i", columns="j", values="phi").to_numpy()


def test_fig3_is_the_row_of_one_layer() -> None:
    figure = fig3.draw(phi(8, 64, [1, 48]), 48)
    assert [axes.get_title() for axes in figure.axes[:-1]] == [r"$\Delta W_q$", r"$\Delta W_v$"] * 2
    assert figure.axes[0].texts[0].get_text() == "Layer 48"


def test_fig4_shows_every_cell_of_both_matrices_and_of_the_gaussian_pair() -> None:
    seeds, random = phi(64, 64, [1, 48]).assign(phi=0.2), phi(64, 64, [48], "q").assign(phi=0.1)
    figure = fig4.draw(seeds, random, 48)
    q, v, gaussian, bar = figure.axes
    assert [axes.get_title() for axes in (q, v, gaussian)] == [r"$\Delta W_q$", r"$\Delta W_v$", "Random Gaussian"]
    assert (values(q) == 0.2).all() and (values(gaussian) == 0.1).all()
    assert list(q.get_yticks()) == ticks(1, 64, 8) and list(q.get_xticks()) == ticks(1, 64, 13)
    assert bar.get_ylim() == (0, 0.5)
    assert figure.get_suptitle() == r"$\phi(A_{r=64}, A_{r=64}^{\prime}, i, j)$"


def test_fig4_minus_control_leaves_out_the_gaussian_pair_which_has_no_shadows() -> None:
    seeds, random = phi(4, 4, [1]).assign(phi=0.4), phi(4, 4, [1], "q").drop(columns="control").assign(phi=0.9)
    *shown, bar = fig4.draw(seeds, random, 1, MINUS_CONTROL).axes
    assert [axes.get_title() for axes in shown] == [r"$\Delta W_q$", r"$\Delta W_v$"]
    assert all(values(axes) == pytest.approx(0.15) for axes in shown)
    assert bar.get_ylim() == (-0.2, 0.2)


@pytest.mark.parametrize(("largest", "top"), [(0.5, 0.5), (0.3, 0.5), (0.51, 0.6), (0.6, 0.6), (1 + 1e-15, 1)])
def test_the_bar_reaches_the_data(largest: float, top: float) -> None:
    table = phi(2, 2, [1])
    table["phi"] = [largest, *[0.1] * 7]
    assert fig4.draw(table, table[table.projection == "v"], 1).axes[-1].get_ylim() == (0, top)
    random = table[table.projection == "q"]
    assert fig4.draw(table.assign(phi=0.1), random, 1).axes[-1].get_ylim() == (0, top)


def test_fig7_has_two_layers_a_row() -> None:
    table = phi(4, 4, [1, 2, 3])
    figure = fig7.draw(table, [1, 2, 3])
    *panels, bar = figure.axes
    assert [axes.get_visible() for axes in panels] == [True] * 6 + [False] * 2
    assert panels[3].get_title() == r"Layer 2, $\Delta W_v$" and panels[4].get_title() == r"Layer 3, $\Delta W_q$"
    site = table[(table.layer == 2) & (table.projection == "v")]
    np.testing.assert_array_equal(values(panels[3]), matrix(site))
    assert [axes.get_xlabel() for axes in panels] == ["", "", "$j$", "$j$", "$j$", "$j$", "", ""]
    assert bar.get_ylim() == (0, 1)
    assert fig7.draw(table.assign(phi=0.1), [1, 2]).axes[-1].get_ylim() == (0, 0.8)
    assert len(fig7.draw(table, [1]).axes) == 3


@pytest.mark.parametrize(("names", "columns"), [("o", 2), ("qv", 4), ("qkv", 3), ("qkvo", 4)])
def test_fig7_keeps_the_projections_of_a_layer_together(names: str, columns: int) -> None:
    *panels, _ = fig7.draw(phi(2, 2, [1, 2, 3, 4], names), [1, 2, 3, 4]).axes
    assert [axes.get_title() for axes in panels] == [
        rf"Layer {layer}, $\Delta W_{name}$" for layer in (1, 2, 3, 4) for name in names
    ]
    assert len({axes.get_position().x0 for axes in panels}) == columns


def test_the_grids_have_the_projections_of_the_table_in_its_order() -> None:
    table, random = phi(2, 4, [1, 2], ["up_proj", "q", "k"]), phi(2, 4, [2], "q")
    up, q, k = titles = [r"$\Delta W_\mathrm{up\_proj}$", r"$\Delta W_q$", r"$\Delta W_k$"]
    assert [axes.get_title() for axes in fig3.draw(table, 2).axes[:-1]] == titles * 2
    assert [axes.get_title() for axes in fig4.draw(table, random, 2).axes[:-1]] == [up, q, k, "Random Gaussian"]
    site = table[(table.layer == 2) & (table.projection == "q")]
    np.testing.assert_array_equal(values(fig4.draw(table, random, 2).axes[1]), matrix(site))


def test_a_path_is_broken_at_its_dots_and_a_title_is_not() -> None:
    figure = fig3.draw(phi(2, 4, [1], [PATHS[0], "decoder cross q"]), 1)
    assert figure.axes[0].get_title() == "ΔW of encoder.\nblock.layer.\nSelfAttention.q"
    assert figure.axes[1].get_title() == "decoder cross q"
    wide = phi(4, 4, [1], ["a" * 40])
    assert_all_can_be_read(fig7.draw(wide, [1]))


def test_fig8_names_a_long_projection_in_the_heading() -> None:
    figure = fig8.draw({"r=4": phi(40, 4, [48], PATHS[:1]).assign(phi=0.15)}, 48)
    assert figure.axes[0].get_title() == r"$\phi(W, A_{r=4}, i, j)$"
    assert f"vectors of W of {PATHS[0]}, by" in note(figure)


def test_fig8_names_arms_of_one_rank() -> None:
    names = [f"/home/me/adapters/{name}" for name in ("a_b$1$", "c")]
    tables = {name: phi(4, 8, [1], "q").assign(right=name) for name in [*names, "random"]}
    figure = fig8.draw(tables, 1)
    assert_all_can_be_read(figure)
    titles = [axes.get_title() for axes in figure.axes[:-1]]
    assert titles == [
        "$\\phi(W_q, A, i, j)$\na_b\\$1\\$",
        "$\\phi(W_q, A, i, j)$\nc",
        r"$\phi(W_q, A_{\mathrm{random}}, i, j)$",
    ]


def test_the_panels_of_fig8_have_one_range_of_j_and_complete_ticks() -> None:
    tables = {f"r={rank}": phi(16, rank, [1], "q", first_i=10).assign(right=f"r{rank}") for rank in (2, 8)}
    first, second, _ = fig8.draw(tables, 1).axes
    assert first.get_xlim() == second.get_xlim() == (0.5, 8.5)
    assert np.isfinite(values(first)).sum(1).tolist() == [2] * 16
    assert list(first.get_yticks()) == [10, 12, 14, 16, 18, 20, 22, 24]


def test_fig8_has_a_panel_per_arm_and_counts_i_as_the_table_does() -> None:
    tables = {label: phi(40, 8, [48], "q", first_i=11).assign(phi=0.15) for label in ("r=4", "random")}
    figure = fig8.draw(tables, 48)
    first, second, bar = figure.axes
    assert [axes.get_title() for axes in (first, second)] == [
        r"$\phi(W_q, A_{r=4}, i, j)$",
        r"$\phi(W_q, A_{\mathrm{random}}, i, j)$",
    ]
    assert first.get_ylim() == (50.5, 10.5) and first.get_yticks()[0] == 11
    assert bar.get_ylim() == (0.1, 0.2)
    assert note(figure) == (
        "$i$: right-singular vectors of $W_q$, by falling singular value; $j$: right-singular vectors of A of r8-s1"
    )
    assert figure.get_suptitle() == "Directions of $W_q$ and of $A$"


@pytest.mark.parametrize(("lowest", "largest", "limits"), [(0.1, 0.21, (0.1, 0.3)), (0.04, 0.2, (0, 0.2))])
def test_the_bar_of_fig8_reaches_the_data_both_ways(lowest: float, largest: float, limits: tuple[float, float]) -> None:
    tables = {str(value): phi(4, 4, [1], "q").assign(phi=value) for value in (lowest, largest)}
    assert fig8.draw(tables, 1).axes[-1].get_ylim() == limits


def lines(figure: Figure) -> list[list[str]]:
    """The texts of a typeset table line by line, from the left, without its heading."""
    positions: dict[float, list[tuple[float, str]]] = {}
    for text in filter(Text.get_text, figure.axes[0].texts):
        x, y = text.get_position()
        positions.setdefault(y, []).append((x, text.get_text()))
    return [[text for _, text in sorted(positions[y])] for y in sorted(positions)]


def test_table7_is_the_table_of_the_paper() -> None:
    table = lines(table7.draw(amplification([4, 64], [48])))
    assert table[2] == ["Layer 48, $W_q$"] and table[5] == ["Layer 48, $W_v$"]
    assert table[3] == ["r4-s0", "4", "0.32", "21.67", "0.019", "0.020", "61.95", "6.91", "21.6", "15.8"]
    assert [len(line) for line in table] == [1, 10, 1, 10, 10, 1, 10, 10, 1]
    assert lines(table7.draw(amplification([4], [1], ["decoder cross q"])))[2] == ["Layer 1, W of decoder cross q"]


def test_table7_shows_a_missing_number_as_a_dash() -> None:
    table = lines(table7.draw(amplification([4], [1]).assign(factor=np.nan)))
    assert table[3][8] == "–"


def test_table6_gives_mean_and_spread_over_seeds_and_controls_below() -> None:
    ends = {("shuffled", 8, 0.01): [2.0], (None, 8, 0.01): [1.0, 1.16], (None, 2, 0.005): [1.2, 1.44]}
    table = lines(table6.draw(losses(ends, "accuracy", "exact_match")))
    assert table[0][4:] == ["loss at start", "loss", "spread", "accuracy", "spread", "exact match", "spread"]
    assert table[1:4] == [
        ["none", "2", "0.005", "2", "2.50", "1.32", "0.24", "0.670", "0.060", "0.670", "0.060"],
        ["8", "0.010", "2", "2.50", "1.08", "0.16", "0.730", "0.040", "0.730", "0.040"],
        ["shuffled", "8", "0.010", "1", "2.50", "2.00", "–", "0.500", "–", "0.500", "–"],
    ]
    assert table[4][0].startswith("Loss, in nats, and accuracy are per token. Numbers are means over seeds.")


def test_table6_of_one_seed_has_no_spread_and_names_the_unit_of_a_loss() -> None:
    table = lines(table6.draw(losses({(None, 8, 0.01): [1.0], (None, 64, 0.01): [0.9]}, "accuracy", "f1", "matthews")))
    assert table[:2] == [
        ["control", "$r$", "learning rate", "seeds", "loss at start", "loss", "accuracy", "F1", "Matthews"],
        ["none", "8", "0.01", "1", "2.50", "1.00", "0.750", "0.750", "0.750"],
    ]
    assert table[3] == ["Loss, in nats, and accuracy are per row."]


BOLD = {
    "ahead of the spread": ([1.0, 1.04, 1.08], [1.3, 1.35, 1.4], ["1.04", "0.740"]),
    "within the spread": ([1.0, 1.05, 1.1], [1.05, 1.1, 1.2], []),
    "two seeds, too few": ([1.0, 1.1], [1.3, 1.4], []),
    "a seed that diverged": ([1.0, 1.05, 1.1], [1.3, 1.35, np.nan], []),
}


@pytest.mark.parametrize(("low", "high", "bold"), BOLD.values(), ids=BOLD)
def test_table6_sets_the_best_mean_bold_where_it_stands_out(
    low: list[float], high: list[float], bold: list[str]
) -> None:
    ends = {(None, 64, 0.01): low, (None, 8, 0.01): high, ("shuffled", 8, 0.01): [0.1, 0.1]}
    figure = table6.draw(losses(ends, "accuracy"))
    assert [text.get_text() for text in texts(figure) if text.get_fontweight() == "bold"] == bold


@pytest.mark.parametrize("ranks", [2, 4, 5])
def test_table6_sets_equal_ranks_of_three_seeds_bold_in_at_most_5_percent_of_cases(ranks: int) -> None:
    """200,000 draws of 2, 4 and 5 ranks give 4.8, 1.6 and 1.2 %."""
    ends = np.random.default_rng(0).normal(size=(1000, ranks, 3))
    tables = [
        pd.DataFrame({"end": end.mean(1), "end spread": np.ptp(end, axis=1), "seeds": 3}, index=range(ranks))
        for end in ends
    ]
    wrong = sum(table6.stands_out(table, "end") is not None for table in tables)
    assert 0 < wrong <= 50


def test_a_seed_that_diverged_is_not_left_out_of_the_mean() -> None:
    table = lines(table6.draw(losses({(None, 8, 0.01): [1.0, np.nan]}, "accuracy")))
    assert table[1] == ["none", "8", "0.01", "2", "2.50", "–", "–", "–", "–"]


def test_a_tiny_accuracy_of_a_control_gives_no_column_more_than_three_decimals() -> None:
    table = lines(table6.draw(losses({(None, 8, 0.01): [1.0], ("random", 8, 0.01): [3.9988]}, "accuracy")))
    assert [line[-1] for line in table[1:3]] == ["0.750", "0.000"]


def test_evolution_draws_each_arm_against_its_last_and_its_next_snapshot() -> None:
    figure = evolution.draw(pairs([8, 64], [1, 2]))
    first = figure.axes[0]
    curves = {(line.get_label(), line.get_color()): np.asarray(line.get_xydata()) for line in first.get_lines()}
    assert len(curves) == 8
    r8, r64, *_ = evolution.COLORS
    np.testing.assert_allclose(curves[evolution.SETTLED, r8], [[0, 0.1], [20, 0.55]])
    np.testing.assert_allclose(curves[evolution.MOVING, r8], [[20, 0.55], [40, 0.55]])
    np.testing.assert_allclose(curves[evolution.LEADING, r64], [[0.0, 0.0], [20, 0.5]])
    np.testing.assert_allclose(curves[evolution.CHANCE, r64], [[0, 0.25], [1, 0.25]])
    assert first.get_xlim() == (0, 40) and first.get_ylim() == (0, 1)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["r8-s0", "r64-s0", *evolution.STYLES]


def test_evolution_marks_the_points_between_two_snapshots() -> None:
    table = pairs([8, 64], [1])
    ends = table[(table.step_left == 0) & (table.step_right == 40)]
    two, more = evolution.draw(ends), evolution.draw(table)
    of_arms = [line for line in two.axes[0].get_lines() if line.get_label() != evolution.CHANCE]
    assert {line.get_marker() for line in of_arms} == set(evolution.MARKERS.values())
    assert {line.get_marker() for line in two.legends[0].get_lines()} > set(evolution.MARKERS.values())
    assert {line.get_marker() for line in more.legends[0].get_lines()} == {"None"}
    assert_all_can_be_read(two)


def test_the_legend_of_evolution_names_an_arm_whose_run_begins_with_an_underscore() -> None:
    table = pairs([8], [1])
    (legend,) = evolution.draw(table.assign(left="_run/" + table.left)).legends
    assert legend.get_texts()[0].get_text().strip() == "_run/r8-s0"


def test_evolution_leaves_the_panel_of_a_missing_site_empty() -> None:
    table = pairs([8], [1, 2], "qo")
    figure = evolution.draw(table[(table.layer == 1) | (table.projection == "o")])
    assert [len(axes.get_lines()) for axes in figure.axes] == [4, 0, 4, 4]
    assert figure.axes[1].get_title() == "Layer 2" and figure.axes[1].get_visible()


def test_evolution_has_eight_of_many_layers_and_says_so() -> None:
    figure = evolution.draw(pairs([8], list(range(1, 97)), basis="update"))
    assert [axes.get_title() for axes in figure.axes[:8]] == [f"Layer {n}" for n in (1, 15, 28, 42, 55, 69, 82, 96)]
    assert note(figure) == (
        "directions: right-singular vectors of ΔA = A − A₀ (what training added); 8 of 96 layers, evenly spread"
    )
    assert evolution.spread_evenly([3, 1, 2]) == [1, 2, 3]
