"""The figure of two ranks, and what it shares with the other grids, read back from its artists."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import fig6, panel
from deltaw.exhibit.drawing.heading import MEANINGS, SYMBOLS, heading_of_pair
from deltaw.exhibit.drawing.scale import BLANK, COLORS, DIVERGING, MINUS_CONTROL, PAPER, TIMES_CHANCE, Scale
from tests.support.tables import phi


def panels(figure: Figure) -> list[Axes]:
    """The panels row by row, without the colour bar."""
    return figure.axes[:-1]


def cells(axes: Axes) -> dict[tuple[int, int], float]:
    """What the cells (i, j) that a panel shows are coloured by."""
    values: np.ma.MaskedArray = np.ma.asarray(axes.images[0].get_array())
    return {(i + 1, j + 1): values[i, j] for i, j in np.argwhere(~np.ma.getmaskarray(values)).tolist()}


def bar(figure: Figure) -> dict[float, str]:
    """The numbers at the colour bar."""
    axes = figure.axes[-1]
    return dict(zip(axes.get_yticks().tolist(), (text.get_text() for text in axes.get_yticklabels()), strict=True))


def test_ticks_are_those_of_the_paper() -> None:
    assert panel.ticks(1, 64) == [1, 6, 12, 18, 23, 29, 35, 40, 46, 52, 58]
    assert panel.ticks(1, 64, 13) == [1, 5, 10, 15, 20, 25, 30, 34, 39, 44, 49, 54, 59]
    assert panel.ticks(1, 64, 8) == [1, 8, 16, 24, 32, 40, 48, 56]
    fig8 = panel.ticks(451, 1228, 15)
    assert (fig8[0], fig8[-1]) == (451, 1176)
    assert panel.ticks(1, 8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert panel.ticks(5, 5) == [5]
    assert panel.ticks(1, 16) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert panel.ticks(10, 26, 15) == [10, 12, 14, 16, 18, 20, 22, 24, 26]


@pytest.mark.parametrize("names", ["qv", "o", "qkv"])
@pytest.mark.parametrize(
    ("ranks", "layers"),
    [((8, 64), [1, 32, 64, 96]), ((4, 16), [1, 2, 3]), ((64, 64), [1]), ((8, 8), [1]), ((1, 4), [1]), ((64, 8), [1])],
)
def test_every_panel_shows_its_half_of_its_site(ranks: tuple[int, int], layers: list[int], names: str) -> None:
    table = phi(*ranks, layers, names)
    figure = fig6.draw(table, layers)
    rank_left, rank_right = ranks
    zoom = min(ranks)
    for number, axes in enumerate(panels(figure)):
        row, column = divmod(number, 2 * len(names))
        whole = column < len(names)
        columns = rank_right if whole else zoom
        site = table[(table.layer == layers[row]) & (table.projection == (2 * names)[column])]
        expected = {
            (i, j): value
            for i, j, value in site[["i", "j", "phi"]].itertuples(index=False)
            if (j >= i if whole else j <= min(i, zoom))
        }
        assert cells(axes) == expected
        assert axes.get_xlim() == (0.5, columns + 0.5) and axes.get_ylim() == (rank_left + 0.5, 0.5)
        assert list(axes.get_xticks()) == panel.ticks(1, columns)
        assert list(axes.get_yticks()) == panel.ticks(1, rank_left)
        assert axes.images[0].get_clim() == (0, 1)


@pytest.mark.parametrize("scale", [PAPER, TIMES_CHANCE, MINUS_CONTROL])
def test_cells_without_phi_are_blank(scale: Scale) -> None:
    table = phi(2, 4, [1])
    table.loc[table.j == 4, "phi"] = np.nan
    table.loc[table.projection == "v", "phi"] = np.nan
    q, v, *_ = panels(fig6.draw(table, [1], scale))
    assert sorted(cells(q)) == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]
    assert cells(v) == {} and [text.get_text() for text in v.texts] == ["no φ"]


def test_times_chance_divides_by_chance_and_counts_what_is_below_as_chance() -> None:
    table = phi(1, 4, [1]).assign(null_mean=0.1)
    table["phi"] = [0.05, 0.1, 0.2, 0.9, 0, 0, 0, 0]
    figure = fig6.draw(table, [1], TIMES_CHANCE)
    q, v, *_ = panels(figure)
    assert cells(q) == pytest.approx({(1, 1): 1, (1, 2): 1, (1, 3): 2, (1, 4): 9})
    assert cells(v) == {(1, j): 1 for j in (1, 2, 3, 4)}
    assert figure.axes[-1].get_title(loc="left") == "φ / chance"
    assert bar(figure) == {1: "≤ 1", 2: "2", 5: "5", 10: "10"}
    assert figure.axes[-1].get_yscale() == "log"


@pytest.mark.parametrize(("largest", "top", "numbers"), [(0.2, 2, "≤ 1,2"), (150, 200, "≤ 1,10,100"), (7e3, 1e4, None)])
def test_the_bar_of_times_chance_reaches_the_data(largest: float, top: float, numbers: str | None) -> None:
    table = phi(2, 2, [1]).assign(null_mean=1e-4, phi=largest * 1e-4)
    figure = fig6.draw(table, [1], TIMES_CHANCE)
    assert figure.axes[-1].get_ylim() == pytest.approx((1, top))
    assert ",".join(bar(figure).values()) == (numbers or "≤ 1,10,100,1000,10000")


def test_minus_control_subtracts_the_control_and_leaves_cells_without_one_blank() -> None:
    table = phi(1, 3, [1]).assign(phi=[0.5, 0.2, 0.9, 0.1, 0.1, 0.1], control=[0.2, 0.6, np.nan, 0.1, 0.1, 0.1])
    figure = fig6.draw(table, [1], MINUS_CONTROL)
    q, v, *_ = panels(figure)
    assert cells(q) == pytest.approx({(1, 1): 0.3, (1, 2): -0.4})
    assert cells(v) == {(1, j): 0 for j in (1, 2, 3)}
    assert figure.axes[-1].get_title(loc="left") == "φ − control"


@pytest.mark.parametrize(("excess", "top"), [(0.3, 0.3), (-0.31, 0.4), (0.02, 0.1), (0, 0.1), (np.nan, 0.1)])
def test_the_bar_of_minus_control_is_symmetric_and_reaches_the_cells_that_are_shown(excess: float, top: float) -> None:
    table = phi(2, 2, [1, 2]).assign(phi=0.5, control=0.5)
    table.loc[table.layer == 1, "control"] -= excess
    table.loc[table.layer == 2, "control"] = 0
    figure = fig6.draw(table, [1], MINUS_CONTROL)
    assert figure.axes[-1].get_ylim() == (-top, top)
    assert list(bar(figure)) == pytest.approx([-top, -top / 2, 0, top / 2, top])


def test_zero_is_the_lightest_colour_of_minus_control_and_blank_is_none() -> None:
    colours = DIVERGING(np.linspace(0, 1, 51))[:, :3]
    lightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness[:26]) > 0).all() and (np.diff(lightness[25:]) < 0).all()
    assert (colours[:25, 2] > colours[:25, 0]).all() and (colours[26:, 0] > colours[26:, 2]).all()
    blank = DIVERGING.get_bad()[:3]
    assert blank[0] == blank[1] == blank[2] < colours[25].min() - 0.2


def test_titles_and_labels_name_the_pair_the_matrices_and_the_layers() -> None:
    figure = fig6.draw(phi(8, 64, [1, 4]), [1, 4])
    assert figure.get_suptitle() == r"$\phi(A_{r=8}, A_{r=64}, i, j)$"
    first, last = panels(figure)[:4], panels(figure)[-4:]
    assert [axes.get_title() for axes in first] == [r"$\Delta W_q$", r"$\Delta W_v$"] * 2
    assert [axes.get_xlabel() for axes in last] == ["$j$"] * 4
    assert [axes.get_ylabel() for axes in (first[0], last[0])] == ["$i$", "$i$"]
    assert [axes.texts[0].get_text() for axes in (first[0], last[0])] == ["Layer 1", "Layer 4"]
    assert figure.axes[-1].get_ylim() == (0, 1)


def test_numbers_of_three_digits_stand_left_of_a_row_alone() -> None:
    for rank, shown in ((64, [True, True]), (128, [True, False])):
        first, second, *_ = panels(fig6.draw(phi(rank, rank, [1]), [1]))
        assert [axes.yaxis.get_tick_params()["labelleft"] for axes in (first, second)] == shown


def test_the_groups_of_columns_are_labelled() -> None:
    for ranks, label in (((8, 64), r"$j \leq 8$"), ((64, 8), r"$j \leq 8$"), ((4, 4), r"$j \leq 4$")):
        labels = [text.get_text() for text in fig6.draw(phi(*ranks, [1, 2]), [1, 2]).texts[-2:]]
        assert labels == ["all $j$", label]


def test_a_layer_without_a_projection_has_an_empty_panel_that_says_so() -> None:
    table = phi(2, 4, [1, 2], ["q", "v"])
    figure = fig6.draw(table[(table.layer == 2) | (table.projection == "q")], [1, 2], MINUS_CONTROL)
    q, v, zoomed_q, zoomed_v = panels(figure)[:4]
    assert [len(axes.images) for axes in (q, v, zoomed_q, zoomed_v)] == [1, 0, 1, 0]
    assert v.get_visible() and [text.get_text() for text in v.texts] == ["not in\nboth"]
    assert v.get_facecolor() == tuple(DIVERGING.get_bad())


def test_rows_that_a_layer_has_nothing_for_are_left_out() -> None:
    names = ["q", "k", "v", "o", "in_proj_qkv", "in_proj_z", "out_proj", "gate_proj"]
    table = phi(2, 4, [1, 2, 3], names)
    linear = table.projection.isin(names[4:7])
    shown = table[linear == (table.layer != 2)]  # attention in the second layer, and nothing more
    rows = [axes.texts[-1].get_text() for axes in panels(fig6.draw(shown, [1, 2, 3])) if axes.texts]
    assert [text for text in rows if text.startswith("Layer")] == ["Layer 1", "Layer 2", "Layer 2", "Layer 3"]


@pytest.mark.parametrize("basis", MEANINGS)
def test_the_heading_gives_model_data_step_basis_and_the_arms(basis: str) -> None:
    source = {"model": ["bundled"], "data": ["calls", "code"]}
    figure = fig6.draw(phi(2, 4, [1], basis=basis), [1], source=source)
    assert figure.get_suptitle() == rf"$\phi({SYMBOLS[basis]}_{{r=2}}, {SYMBOLS[basis]}_{{r=4}}, i, j)$"
    subtitle, note = (text.get_text().replace("\n", " ") for text in figure.texts[1:3])
    assert subtitle == f"model bundled · data calls · data code · step 150 · basis {basis}"
    assert note == f"$i$: r2-s0; $j$: r4-s1; directions: {MEANINGS[basis]}"


def test_the_heading_gives_two_steps_with_the_arms_and_none_for_adapter_folders() -> None:
    table = phi(4, 4, [1])
    heading = heading_of_pair(table.assign(step_left=50), PAPER, {})
    assert heading.subtitle == ["steps 50 and 150", "basis A"]
    assert heading.note.startswith("$i$: r4-s0 (step 50); $j$: r4-s1 (step 150); ")
    folders = table.assign(step_left=None, step_right=None, left="/a/b/r4", right="/a/b/r16/")
    heading = heading_of_pair(folders, PAPER, {"model": ["Llama"], "data": []})
    assert heading.title == r"$\phi(A_{r=4}, A_{r=4}^{\prime}, i, j)$"
    assert heading.subtitle == ["model Llama", "basis A"] and heading.note.startswith("$i$: r4; $j$: r16; ")


def test_ranks_of_a_pattern_are_shown_from_the_smallest_to_the_largest() -> None:
    low, high = phi(2, 4, [1]), phi(4, 16, [2])
    figure = fig6.draw(pd.concat([low, high]), [1, 2])
    assert figure.get_suptitle() == r"$\phi(A_{r=2\mathrm{\ to\ }4}, A_{r=4\mathrm{\ to\ }16}, i, j)$"
    assert figure.texts[-1].get_text() == r"$j \leq 2\mathrm{\ to\ }4$"
    first, last = panels(figure)[0], panels(figure)[-4]
    assert (first.get_xlim(), last.get_xlim()) == ((0.5, 4.5), (0.5, 16.5))


def test_the_heading_of_a_variant_tells_what_it_compares_with() -> None:
    heading = heading_of_pair(phi(2, 4, [1]), MINUS_CONTROL, {})
    assert heading.title == r"$\phi(A_{r=2}, A_{r=4}, i, j)$ minus control"
    assert "control: φ of both arms' shadows, which have nothing to learn" in heading.note
    heading = heading_of_pair(phi(2, 4, [1]), TIMES_CHANCE, {})
    assert heading.title == r"$\phi(A_{r=2}, A_{r=4}, i, j)$: times chance"
    assert heading.note.endswith("chance: φ of random subspaces")


def test_colours_rise_in_lightness_and_blank_is_none_of_them() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    lightness = COLORS(np.linspace(0, 1, 50))[:, :3] @ weights
    assert (np.diff(lightness) > 0).all()
    red, green, blue = (int(BLANK[n : n + 2], 16) for n in (1, 3, 5))
    assert blue > green > red  # every colour of φ above the darkest is redder than it is blue
