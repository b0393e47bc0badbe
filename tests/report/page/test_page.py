"""`report.html` without a browser: what its data hold, and that nothing in it can start or be fetched."""

import base64
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import deltaw.report.page.grids as grids
from deltaw.errors import UserError
from deltaw.report import page
from tests.support.folders import write_adapter
from tests.support.pages import LAYERS, analysed, data_of, write_learned

HALF = 0.5 / 65534  # of what one step of two bytes stands for
TOP = r"<div class=\"answer\">(.*?)</div>"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    return analysed(folder / "out", f"run={write_learned(folder / 'run')}", "exhibits=[evolution]")


@pytest.fixture(scope="module")
def text(learned: Path) -> str:
    return (learned / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(text: str) -> dict[str, Any]:
    return data_of(text)


def numbers(packed: str) -> np.ndarray:
    words = np.frombuffer(base64.b64decode(packed), dtype="<u2").astype(float)
    return np.where(words == 65535, np.nan, words / 65534)


def test_every_cell_of_the_table_is_in_the_page(learned: Path, data: dict[str, Any]) -> None:
    table = pd.read_parquet(learned / "phi.parquet")
    phi, p = numbers(data["grids"]["phi"]), numbers(data["grids"]["p"])
    sites = data["grids"]["sites"]
    assert sum(site["rows"] * site["columns"] for site in sites) == len(table) == len(phi) == len(p)
    for site in sites:
        pair = data["grids"]["pairs"][site["pair"]]
        rows = table[(table.left == pair["left"]) & (table.right == pair["right"]) & (table.basis == site["basis"])]
        rows = rows[(rows.layer == site["layer"]) & (rows.projection == site["projection"])].sort_values(["i", "j"])
        here = slice(site["at"], site["at"] + len(rows))
        np.testing.assert_allclose(phi[here], rows.phi, atol=HALF)
        np.testing.assert_allclose(10 ** (-20 * p[here]), rows.p_value, rtol=20 * np.log(10) * HALF * 1.01)
        np.testing.assert_allclose(rows.null_mean, np.maximum(rows.i, rows.j) / site["width"])


def test_the_control_of_a_pair_is_its_shadows(data: dict[str, Any]) -> None:
    pairs = data["grids"]["pairs"]
    assert [(pair["left"], pair["right"], pair["controls"]) for pair in pairs] == [
        ("r2-s0", "r4-s0", [1]),
        ("r2-s0-shadow1", "r4-s0-shadow1", []),
    ]


def test_the_losses_are_those_of_the_advice(data: dict[str, Any]) -> None:
    trained, cut = data["losses"]["series"]
    assert data["losses"]["axis"] == "judged loss, nats a token"
    assert [point["rank"] for point in trained["points"]] == [2, 4]
    assert [point["rank"] for point in cut["points"]] == [1, 2]
    assert all(point["low"] < point["loss"] < point["high"] for point in cut["points"])
    assert cut["points"][0]["loss"] == pytest.approx(trained["points"][0]["loss"], abs=1e-4)  # the same losses
    assert [line["name"] for line in data["losses"]["lines"]] == ["base"]
    assert data["losses"]["lines"][0]["loss"] > cut["points"][0]["loss"]


def test_the_snapshots_of_both_arms_are_beside_their_last(data: dict[str, Any]) -> None:
    table = pd.DataFrame(data["evolution"])
    assert table.groupby("left").step_left.unique().map(list).to_dict() == {"r2-s0": [0, 5], "r4-s0": [0, 5]}
    assert set(table.step_right) == {10} and len(table) == 2 * 2 * 2 * LAYERS


def test_the_answer_is_at_most_three_sentences(text: str) -> None:
    found = re.search(TOP, text)
    assert found
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)", unescape(found[1].replace("</p>", " ")))) <= 3


def test_nothing_can_be_fetched(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy and policy[1].startswith("default-src 'none';") and "http" not in policy[1]
    own = text.replace(page.find_plotly().read_text(encoding="utf-8"), "")
    assert not re.findall(r'(?:src|href)=(?!"data:,")', own)


class Elements(HTMLParser):
    """The names and attributes of all elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.attributes += [name for name, _ in attrs]


HOSTILE = ['a<script>alert(1)</script>"', "b](javascript:alert(1))'\u202e\n# x|`&amp;"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    left, right = (
        write_adapter(tmp_path / name, rank, 2, seed=rank, base_model_name_or_path=f"<img src=x onerror=alert({rank})>")
        for name, rank in zip(HOSTILE, (2, 4), strict=True)
    )
    sides = [
        f"{side}='{str(path).replace(chr(39), chr(92) + chr(39))}'" for side, path in (("left", left), ("right", right))
    ]
    return analysed(tmp_path / "out", *sides, "exhibits=[]")


def test_hostile_names_are_text_in_html(hostile: Path, text: str) -> None:
    found = (hostile / "report.html").read_text(encoding="utf-8")
    elements, usual = Elements(found), Elements(text)
    assert set(elements.found) <= set(usual.found) and elements.found.count("script") == usual.found.count("script")
    assert not {name for name in elements.attributes if name.startswith("on")}
    assert "\u202e" not in found and r"\u202e" in unescape(found)
    assert "<script>alert" not in found and "&lt;script&gt;alert(1)&lt;/script&gt;" in found
    (pair,) = data_of(found)["grids"]["pairs"]
    assert pair["left"].endswith(HOSTILE[0]) and pair["right"].endswith(r"'\u202e\n# x|`&amp;")


def test_hostile_names_are_text_in_markdown(hostile: Path) -> None:
    words = (hostile / "summary.md").read_text(encoding="utf-8")
    assert "alert(1)" in words and "\u202e" not in words
    assert not re.search(r"(?<!\\)<(?:script|img)", words)
    assert not re.search(r"(?<!\\)\]\(", words)
    assert not re.search(r"^# x", words, re.MULTILINE)
    tables = [line for line in words.splitlines() if line.startswith("| adapter")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in tables) and tables


def test_too_many_cells_leave_the_page_first_and_are_spoken_of(
    learned: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grids, "MOST_CELLS", len(numbers(data["grids"]["phi"])) - 1)
    monkeypatch.setattr(grids, "MOST_DIRECTIONS", 2)
    output = analysed(tmp_path / "out", f"run={learned.parent / 'run'}", "exhibits=[]")
    fewer = data_of((output / "report.html").read_text(encoding="utf-8"))["grids"]
    assert {(site["rows"], site["columns"]) for site in fewer["sites"]} == {(2, 2)}
    assert fewer["left_out"].startswith("The page has no cells of sizes above 2: ")
    assert len(fewer["sites"]) == 2 * 2 * LAYERS * len(fewer["bases"])  # their levels and angles stay


def test_without_plotly_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install plotly"):
        analysed(tmp_path / "out", f"left={tmp_path}", f"right={tmp_path}")
    assert not (tmp_path / "out").exists()
