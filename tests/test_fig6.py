"""The figure, read back from its artists."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from deltaw.cli import UserError
from deltaw.exhibit import DPI, fig6, save


def table(rank_left: int, rank_right: int, layers: list[int], projections: str = "qv") -> pd.DataFrame:
    """A table in which no two cells have the same φ."""
    index = pd.MultiIndex.from_product(
        [layers, list(projections), range(1, rank_left + 1), range(1, rank_right + 1)],
        names=["layer", "projection", "i", "j"],
    )
    return pd.DataFrame({"phi": np.linspace(0, 1, len(index))}, index=index).reset_index()


def panels(figure: Figure) -> list[Axes]:
    """The panels row by row, without the colour bar."""
    return figure.axes[:-1]


def cells(axes: Axes) -> dict[tuple[int, int], float]:
    """φ of the cells (i, j) that a panel shows."""
    phi: np.ma.MaskedArray = np.ma.asarray(axes.images[0].get_array())
    return {(i + 1, j + 1): phi[i, j] for i, j in np.argwhere(~np.ma.getmaskarray(phi)).tolist()}


ROWS = {
    **{1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 3, 4], 8: [1, 3, 5, 8], 12: [1, 4, 8, 12]},
    **{24: [1, 8, 16, 24], 28: [1, 9, 19, 28], 96: [1, 32, 64, 96]},
}


@pytest.mark.parametrize(("depth", "rows"), ROWS.items())
def test_rows_are_the_first_layer_and_the_thirds_of_the_depth(depth: int, rows: list[int]) -> None:
    assert fig6.layers_to_draw(table(1, 1, list(range(1, depth + 1)))) == rows


def test_depth_counts_the_layers_that_were_adapted() -> None:
    assert fig6.layers_to_draw(table(1, 1, [10, 11, 12, 13, 14, 15])) == [10, 11, 13, 15]


def test_layers_can_be_chosen_where_they_have_q_and_v() -> None:
    assert fig6.layers_to_draw(table(1, 1, [1, 2, 3]), [3, 1]) == [3, 1]
    with pytest.raises(UserError, match=r"\[7\]"):
        fig6.layers_to_draw(table(1, 1, [1, 2, 3]), [1, 7])
    with pytest.raises(UserError, match="c_attn"):
        fig6.layers_to_draw(table(1, 1, [1]).replace({"q": "c_attn"}))


def test_64_columns_have_the_ticks_of_the_paper() -> None:
    assert fig6.ticks(64) == [1, 6, 12, 18, 23, 29, 35, 40, 46, 52, 58]
    assert fig6.ticks(8) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("ranks", "layers"),
    [((8, 64), [1, 32, 64, 96]), ((4, 16), [1, 2, 3]), ((64, 64), [1]), ((8, 8), [1]), ((1, 4), [1]), ((64, 8), [1])],
)
def test_every_panel_shows_its_half_of_its_site(ranks: tuple[int, int], layers: list[int]) -> None:
    phi = table(*ranks, layers)
    figure = fig6.draw(phi, layers)
    rank_left, rank_right = ranks
    zoom = min(ranks)
    for number, axes in enumerate(panels(figure)):
        row, column = divmod(number, 4)
        columns = rank_right if column < 2 else zoom
        site = phi[(phi.layer == layers[row]) & (phi.projection == "qv"[column % 2])]
        expected = {
            (i, j): value
            for i, j, value in site[["i", "j", "phi"]].itertuples(index=False)
            if (j >= i if column < 2 else j <= min(i, zoom))
        }
        assert cells(axes) == expected
        assert axes.get_xlim() == (0.5, columns + 0.5) and axes.get_ylim() == (rank_left + 0.5, 0.5)
        assert list(axes.get_xticks()) == fig6.ticks(columns)
        assert list(axes.get_yticks()) == fig6.ticks(rank_left)
        assert axes.images[0].get_clim() == (0, 1)


def test_cells_without_phi_are_blank() -> None:
    phi = table(2, 4, [1])
    phi.loc[phi.j == 4, "phi"] = np.nan
    wide = panels(fig6.draw(phi, [1]))[0]
    assert sorted(cells(wide)) == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]


def test_titles_and_labels_say_what_is_drawn() -> None:
    figure = fig6.draw(table(8, 64, [1, 4]), [1, 4])
    assert figure.get_suptitle() == r"$\phi(A_{r=8}, A_{r=64}, i, j)$"
    first, last = panels(figure)[:4], panels(figure)[-4:]
    assert [axes.get_title() for axes in first] == [r"$\Delta W_q$", r"$\Delta W_v$"] * 2
    assert [axes.get_xlabel() for axes in last] == ["$j$"] * 4
    assert [axes.get_ylabel() for axes in (first[0], last[0])] == ["$i$", "$i$"]
    assert [axes.texts[0].get_text() for axes in (first[0], last[0])] == ["Layer 1", "Layer 4"]
    bar = figure.axes[-1]
    assert bar.get_ylim() == (0, 1)


def test_colours_rise_in_lightness_and_blank_is_none_of_them() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    lightness = fig6.COLORS(np.linspace(0, 1, 50))[:, :3] @ weights
    assert (np.diff(lightness) > 0).all()
    red, green, blue = (int(fig6.BLANK[n : n + 2], 16) for n in (1, 3, 5))
    assert blue > green > red  # every colour of φ above the darkest is redder than it is blue


@pytest.mark.parametrize("ranks", [(8, 64), (4, 16), (64, 64), (8, 8), (16, 64), (20, 20), (11, 12), (1, 1)])
def test_no_two_texts_touch_and_all_are_on_the_page(ranks: tuple[int, int]) -> None:
    figure = fig6.draw(table(*ranks, [1, 96]), [1, 96])
    figure.dpi = DPI
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    touching = [
        (a.get_text(), b.get_text())
        for (a, box_a), (b, box_b) in combinations(zip(texts, boxes, strict=True), 2)
        if box_a.overlaps(box_b)
    ]
    assert not touching


def test_the_files_are_the_same_each_time_and_the_pdf_has_real_text(tmp_path: Path) -> None:
    for name in ("once", "again"):
        save(fig6.draw(table(2, 4, [1]), [1]), tmp_path / name)
    for suffix in (".png", ".pdf"):
        once, again = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("once", "again"))
        assert once == again
    assert b"/FontFile2" in once and b"/Type3" not in once
