"""`report.html` in Chromium: what a reader sees, clicks and types there. It is left out where there is no Chromium.

DELTAW_SCREENSHOTS=FOLDER keeps a picture of every state that a test looks at.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pytest

from tests.support.pages import LAYERS, analysed, write_learned

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NARROW = 360  # pixels, of a phone
PICTURES = os.environ.get("DELTAW_SCREENSHOTS")

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    if not CHROMIUM:
        pytest.skip("no Chromium on the PATH: install one, as by apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # which root has not
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return analysed(folder / "out", f"run={write_learned(folder / 'run')}", "exhibits=[evolution]")


@pytest.fixture(scope="module")
def phi(analysis: Path) -> pd.DataFrame:
    return pd.read_parquet(analysis / "phi.parquet")


@pytest.fixture
def opened(browser: "Browser", analysis: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens the page offline, with `change` made to its text; whatever goes wrong in it is an error at the end."""
    wrong: list[str] = []
    contexts = []

    def open_page(
        width: int = 1100, scheme: Literal["light", "dark"] = "light", change: tuple[str, str] = ("", "")
    ) -> "Page":
        file = tmp_path / "report.html"
        text = (analysis / "report.html").read_text(encoding="utf-8")
        assert change[0] in text
        file.write_text(text.replace(*change) if change[0] else text, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def picture(page: "Page", name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def drawn(page: "Page", chart: str) -> list[dict[str, Any]]:
    """The traces of a chart."""
    traces: list[dict[str, Any]] = page.evaluate(
        "id => document.getElementById(id).data.map(({x, y, z, name}) => ({x, y, z, name}))", chart
    )
    return traces


def choose(page: "Page", **choices: str) -> None:
    for control, value in choices.items():
        page.select_option(f"#{control}", value)


def cells(phi: pd.DataFrame, layer: int, projection: str, basis: str, shadow: str = "") -> pd.DataFrame:
    rows = phi[(phi.left == f"r2-s0{shadow}") & (phi.right == f"r4-s0{shadow}") & (phi.basis == basis)]
    return rows[(rows.layer == layer) & (rows.projection == projection)].sort_values(["i", "j"])


def check_grid(page: "Page", phi: pd.DataFrame, layer: int, projection: str, basis: str) -> None:
    """The grid, and then each of its scales, shows what the table holds."""
    rows, control = cells(phi, layer, projection, basis), cells(phi, layer, projection, basis, "-shadow1")
    beyond = np.log10(np.maximum(1, rows.phi / rows.null_mean))
    for scale, values in (("phi", rows.phi), ("control", rows.phi.to_numpy() - control.phi), ("chance", beyond)):
        if page.input_value("#scale") != scale:
            choose(page, scale=scale)
        np.testing.assert_allclose(np.ravel(drawn(page, "grid")[0]["z"]), values, atol=1e-4)
    choose(page, scale="phi")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_grid_is_the_table_whatever_is_chosen(
    opened: Open, phi: pd.DataFrame, scheme: Literal["light", "dark"]
) -> None:
    page = opened(scheme=scheme)
    picture(page, f"all-{scheme}")
    check_grid(page, phi, 1, "q", "A")
    for basis in ("update", "output"):
        choose(page, basis=basis, layer="3", projection="v")
        check_grid(page, phi, 3, "v", basis)
        picture(page, f"{basis}-{scheme}")
    assert page.text_content("#site-title") == "layer 3, ΔW_v"


@pytest.mark.parametrize(
    "broken", ["basis: chooseBasis, ", "layer: chooseSite, ", "projection: chooseSite, ", "scale: drawSite,"]
)
def test_a_control_that_does_nothing_is_noticed(opened: Open, phi: pd.DataFrame, broken: str) -> None:
    page = opened(change=(broken, ""))
    site = {"layer": "1", "projection": "q", "basis": "A"}
    for control, other in {"layer": "3", "projection": "v", "basis": "output"}.items():
        if broken.startswith(control):
            choose(page, **{control: other})
            site[control] = other
    with pytest.raises(AssertionError):
        check_grid(page, phi, int(site["layer"]), site["projection"], site["basis"])


def test_the_pair_can_be_the_control_pair(opened: Open, phi: pd.DataFrame) -> None:
    page = opened()
    choose(page, pair="r2-s0-shadow1 – r4-s0-shadow1")
    rows = cells(phi, 1, "q", "A", "-shadow1")
    np.testing.assert_allclose(np.ravel(drawn(page, "grid")[0]["z"]), rows.phi, atol=1e-4)
    assert page.locator("#scale option").all_text_contents() == ["φ", "φ / chance"]  # it has no control of its own


def test_a_step_can_be_chosen_where_there_are_several(opened: Open, analysis: Path) -> None:
    page = opened()
    assert page.locator("label", has=page.locator("#step")).is_hidden()  # the compared pair has one
    choose(page, pair="r4-s0 – r4-s0")
    steps = {"0 and 10": (0, 10), "5 and 10": (5, 10), "0 and 5": (0, 5)}
    assert page.locator("#step option").all_text_contents() == list(steps)
    table = pd.read_parquet(analysis / "pairs.parquet").query("left == 'r4-s0' and right == 'r4-s0' and basis == 'A'")
    for label, (left, right) in steps.items():
        page.select_option("#step", label=label)
        expected = table.query(f"step_left == {left} and step_right == {right}")
        expected = expected.pivot(index="projection", columns="layer", values="phi_corner")
        np.testing.assert_allclose(drawn(page, "map")[0]["z"], expected, rtol=1e-4)
        assert all(len(side["x"]) == 4 for side in drawn(page, "spectra"))
    picture(page, "steps")
    assert page.locator("#grid").is_hidden() and page.locator("#no-cells").is_visible()  # cells take too long
    choose(page, pair="r2-s0 – r4-s0")
    assert page.locator("#grid").is_visible() and page.locator("#no-cells").is_hidden()


def point(page: "Page", chart: str, x: float, y: float) -> tuple[float, float]:
    """Where a point of a chart lies on the screen."""
    page.locator(f"#{chart}").scroll_into_view_if_needed()
    left, top = page.evaluate(
        """([id, x, y]) => {
            const chart = document.getElementById(id), box = chart.getBoundingClientRect();
            const {xaxis, yaxis} = chart._fullLayout;
            return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [chart, x, y],
    )
    return left, top


def test_hover_shows_the_cell_of_the_table(opened: Open, phi: pd.DataFrame) -> None:
    page = opened()
    row = cells(phi, 1, "q", "A").query("i == 2 and j == 3").iloc[0]
    control = cells(phi, 1, "q", "A", "-shadow1").query("i == 2 and j == 3").iloc[0]
    page.mouse.move(*point(page, "grid", 3, 2))
    page.wait_for_selector("#grid .hovertext")
    lines = page.locator("#grid .hovertext tspan.line").all_text_contents()
    assert lines == [
        "i 2, j 3",
        f"φ {row.phi:.3f}",
        f"control {control.phi:.3f}",
        f"chance {row.null_mean:.3f}",
        f"p {row.p_value:.2g}",
    ]
    picture(page, "hover")


def test_a_click_on_the_map_opens_a_site(opened: Open, phi: pd.DataFrame) -> None:
    page = opened()
    page.mouse.click(*point(page, "map", 1, 1))
    page.locator("#site-title", has_text="layer 2, ΔW_v").wait_for()
    check_grid(page, phi, 2, "v", "A")


def test_the_map_shows_the_measure_that_is_chosen(opened: Open, analysis: Path) -> None:
    page = opened()
    pairs = pd.read_parquet(analysis / "pairs.parquet").query("left == 'r2-s0' and right == 'r4-s0' and basis == 'A'")
    columns = {"corner": "phi_corner", "first": "phi_first", "k_star": "k_star"}
    for measure, column in columns.items():
        choose(page, measure=measure)
        expected = pairs.pivot(index="projection", columns="layer", values=column)
        np.testing.assert_allclose(drawn(page, "map")[0]["z"], expected, rtol=1e-4)


def test_the_arrow_keys_reach_every_cell_of_the_grid(opened: Open, phi: pd.DataFrame) -> None:
    page = opened()
    page.focus("#grid")
    rows, control = cells(phi, 1, "q", "A"), cells(phi, 1, "q", "A", "-shadow1")
    reached = []
    for keys in ("", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        if keys:
            page.keyboard.press(keys)
        text = page.text_content("#grid-cursor") or ""
        assert re.sub(r"[\d.]+", "#", text) == "i #, j #, φ #, control #, chance #, p #"
        i, j = map(int, re.findall(r"[ij] (\d+)", text))
        row, other = (table.query(f"i == {i} and j == {j}").iloc[0] for table in (rows, control))
        levels = [float(number) for number in re.findall(r"[\d.]+", text)[2:]]
        assert levels[:3] == pytest.approx([row.phi, other.phi, row.null_mean], abs=6e-4)
        assert levels[3] == pytest.approx(row.p_value, rel=0.06)
        reached.append((i, j))
        shapes = page.evaluate("document.getElementById('grid').layout.shapes")
        assert [[one[end] for end in ("x0", "x1", "y0", "y1")] for one in shapes] == [
            [j - 0.5, j + 0.5, i - 0.5, i + 0.5]
        ]
    assert reached == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 4), (2, 4), (2, 3)]
    picture(page, "grid-by-keyboard")


def test_all_can_be_reached_by_the_keyboard(opened: Open) -> None:
    page = opened()
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert reached[-1] == "BODY" or outline != "none", reached[-1]
    order = "near SUMMARY pair basis measure map layer projection scale grid".split()
    order += "evolution-arm evolution-measure evolution-slider evolution-map BUTTON BUTTON BODY".split()
    assert reached[: len(order)] == order
    page.focus("#map")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight"):  # the last one is beyond the edge
        page.keyboard.press(key)
    assert (page.text_content("#map-cursor") or "").startswith(f"layer {LAYERS}, ΔW_v: ")
    page.keyboard.press("Enter")
    assert page.text_content("#site-title") == f"layer {LAYERS}, ΔW_v"
    page.focus("#near")
    page.keyboard.press("Enter")
    assert page.get_attribute("#near", "aria-pressed") == "true"


def test_the_slider_moves_through_the_snapshots(opened: Open, analysis: Path) -> None:
    page = opened()
    pairs = pd.read_parquet(analysis / "pairs.parquet").query("left == 'r4-s0' and right == 'r4-s0' and basis == 'A'")
    choose(page, **{"evolution-arm": "r4-s0"})
    page.focus("#evolution-slider")
    for step, key in ((0, "Home"), (5, "ArrowRight")):
        page.keyboard.press(key)
        rows = pairs.query(f"step_left == {step} and step_right == 10")
        expected = rows.pivot(index="projection", columns="layer", values="phi_corner")
        np.testing.assert_allclose(drawn(page, "evolution-map")[0]["z"], expected, rtol=1e-4)
        assert page.text_content("#evolution-step") == f"{step} against 10"
        first = rows.query("layer == 1 and projection == 'q'").iloc[0]
        levels = f"φ {first.phi_corner:.3f}, chance {first.null_corner:.3f}"
        assert page.text_content("#evolution-map-cursor") == f"step {step}, layer 1, ΔW_q: {levels}"
    choose(page, basis="output")
    assert (page.text_content("#evolution-basis") or "").startswith("Basis A: ")  # whatever is chosen above


def test_a_button_hides_both_losses_of_its_arm(opened: Open) -> None:
    page = opened()
    visible = "document.getElementById('curves').data.filter((one) => one.visible).map((one) => one.name)"
    arms = page.locator("#curves-arms button")
    assert arms.all_text_contents() == ["r2-s0", "r4-s0"]
    assert page.evaluate(visible) == ["r2-s0, validation", "r4-s0, validation"]  # the run has no training losses
    arms.first.click()
    assert arms.first.get_attribute("aria-pressed") == "false"
    assert page.evaluate(visible) == ["r4-s0, validation"]
    arms.first.click()
    assert len(page.evaluate(visible)) == 2


def test_the_losses_are_in_the_chart_and_in_its_table(opened: Open) -> None:
    page = opened()
    trained, cut, base = drawn(page, "losses")
    assert (trained["x"], cut["x"]) == ([2, 4], [1, 2]) and base["name"] == "base"
    page.click("summary")
    rows = [row.split("\t") for row in page.inner_text("tbody").splitlines()]
    assert [float(row[2]) for row in rows] == pytest.approx([*trained["y"], *cut["y"], base["y"][0]], abs=1e-4)
    picture(page, "losses")


def test_on_opening_there_is_one_more_chart_at_a_time(opened: Open) -> None:
    task = "later.shift()();"
    page = opened(
        change=(task, f"{task} (window.counts ??= []).push(document.querySelectorAll('.js-plotly-plot').length);")
    )
    assert page.evaluate("window.counts") == [
        3,
        4,
        5,
        6,
        7,
        7,
    ]  # after the first two, and the last task tells that all is drawn


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened: Open, scheme: Literal["light", "dark"]) -> None:
    page = opened(width=NARROW, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    picture(page, f"phone-{scheme}")


def test_the_colours_follow_the_system(opened: Open) -> None:
    from playwright.sync_api import expect

    page = opened()
    ticks = page.locator("#curves .xtick text").first
    light = ticks.evaluate("tick => getComputedStyle(tick).fill")
    page.emulate_media(color_scheme="dark")
    expect(ticks).not_to_have_css("fill", light)
