"""`report.html` without a browser: what its data hold, and that nothing in it can start or be fetched."""

import base64
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import deltaw.report.page.grids as grids
from deltaw.analysis import columns
from deltaw.analysis.pairs import adapter_pair
from deltaw.analysis.selection import find_adapter
from deltaw.errors import UserError
from deltaw.exhibit.view import View
from deltaw.report import page
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run
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
    sites = [site for site in data["grids"]["sites"] if "at" in site]
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
    assert [(pair["left"], pair["right"], pair["controls"]) for pair in pairs[:2]] == [
        ("r2-s0", "r4-s0", [1]),
        ("r2-s0-shadow1", "r4-s0-shadow1", []),
    ]


def test_pairs_without_cells_are_there_with_their_levels_up_to_a_limit(
    learned: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, found = pd.read_parquet(learned / "pairs.parquet"), data["grids"]
    assert len(found["sites"]) == len(table) and found["left_out"] == ""
    steps = [pair["steps"] for pair in found["pairs"] if pair["left"] == pair["right"] == "r4-s0"]
    assert steps == [[0, 10], [5, 10], [0, 5]]
    with_cells = {site["pair"] for site in found["sites"] if "at" in site}
    assert with_cells == {0, 1}
    phi = pd.read_parquet(learned / "phi.parquet")
    of_a_pair = len(table) - sum(site["pair"] in with_cells for site in found["sites"])
    monkeypatch.setattr(grids, "MOST_ROWS", of_a_pair - 1)
    shown, left_out = grids._shown(table, phi)
    assert len(shown) == len(found["pairs"]) - 1 and left_out == "Pairs that are in pairs.parquet alone: 1."


def test_the_losses_are_those_of_the_advice(data: dict[str, Any]) -> None:
    trained, cut = data["losses"]["series"]
    assert data["losses"]["axis"] == "judged loss, nats a token"
    assert [point["rank"] for point in trained["points"]] == [2, 4]
    assert [point["rank"] for point in cut["points"]] == [1, 2]
    assert all(point["low"] < point["loss"] < point["high"] for point in cut["points"])
    assert cut["points"][0]["loss"] == pytest.approx(trained["points"][0]["loss"], abs=1e-4)  # the same losses
    assert data["losses"]["caption"].startswith("A bar of a cut is")  # there is one seed
    assert [line["name"] for line in data["losses"]["lines"]] == ["base"]
    assert data["losses"]["lines"][0]["loss"] > cut["points"][0]["loss"]


@pytest.mark.parametrize("sizes", [["sizes above 2"], []], ids=["large", "small"])
def test_only_what_was_removed_is_said_to_be_left_out(
    learned: Path, sizes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phi = pd.read_parquet(learned / "phi.parquet")
    runs = [RunDirectory(learned.parent / "run")]
    subject = adapter_pair(find_adapter("r2-s0", runs, None), find_adapter("r4-s0", runs, None))
    view = View(subject, "A", ["q", "v"], layers=[1, 2], middle=1, left_out=[])
    monkeypatch.setattr(grids, "MOST_CELLS", 0)
    monkeypatch.setattr(grids, "MOST_DIRECTIONS", 2 if sizes else 64)
    left, words = grids._fitting(phi, view)
    removed = [*sizes, "layers that the figures leave out", "the control pair"]  # there are no other pairs
    assert words.startswith(f"The page has no cells of {', '.join(removed)}: {len(left):,} cells are here")
    assert set(left.left) == {"r2-s0"} and set(left.layer) == {1, 2}


def test_the_snapshots_of_both_arms_are_beside_their_last(data: dict[str, Any]) -> None:
    table = pd.DataFrame(data["evolution"])
    assert set(table.basis) == {"A"} and (table.null_corner == table.left.str[1].astype(int) / 16).all()
    assert table.groupby("left").step_left.unique().map(list).to_dict() == {"r2-s0": [0, 5], "r4-s0": [0, 5]}
    assert set(table.step_right) == {10} and len(table) == 2 * 2 * 2 * LAYERS


def test_the_answer_is_at_most_three_sentences(text: str) -> None:
    found = re.search(TOP, text)
    assert found
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)", unescape(found[1].replace("</p>", " ")))) <= 3


def test_without_an_answer_it_is_what_the_weights_tell_and_why_no_rank_is_advised(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r4-s0", layers=2)
    output = analysed(tmp_path / "out", f"run={run}", "exhibits=[]")
    found = re.findall(r"<p>(.*?)</p>", re.findall(TOP, (output / "report.html").read_text(encoding="utf-8"))[0])
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert [unescape(sentence) for sentence in found[:-1]] == summary["findings"][:2]
    assert found[-1].startswith("run has no judged losses") and summary["advice"]["missing"].startswith(found[-1])


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


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two folders, which may be merged; they name two bases."""
    folder = tmp_path_factory.mktemp("folders")
    sides = [
        f"{side}={write_adapter(folder / side, rank, 2, seed=rank, base_model_name_or_path=f'base-of-{side}')}"
        for side, rank in (("left", 2), ("right", 4))
    ]
    return (analysed(folder / "out", *sides, "exhibits=[]") / "report.html").read_text(encoding="utf-8")


def test_remarks_and_both_bases_are_in_the_page(two_tasks: str, text: str) -> None:
    remarks = re.search(r'<div class="remarks">(.*?)</div>', two_tasks)
    assert remarks and "left names the base &#x27;base-of-left&#x27;" in remarks[1]
    for side in ("left", "right"):
        assert re.search(rf"<dd>{side}, rank \d, base base-of-{side}</dd>", two_tasks)
    assert '<div class="remarks">' not in text and text.count("base tiny</dd>") == 2


def test_adapters_to_merge_have_a_verdict_and_a_row_for_each_site(two_tasks: str, text: str) -> None:
    found = re.search(r'<section aria-labelledby="h-merging">.*?</section>', two_tasks)
    assert found and "h-merging" not in text
    assert "<li>left + right: " in found[0] and "left + right: " in re.findall(TOP, two_tasks)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", found[0])
    head, *sites = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    names = [name for name in columns.MERGE if name not in ("left", "right", "step_left", "step_right")]
    assert head == [name.replace("_", " ") for name in names] and len(sites) == 4
    assert [row[:2] for row in sites] == [["1", "q"], ["1", "v"], ["2", "q"], ["2", "v"]]


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


def test_hostile_names_are_text_in_html(hostile: Path, two_tasks: str) -> None:
    found = (hostile / "report.html").read_text(encoding="utf-8")
    elements, usual = Elements(found), Elements(two_tasks)
    assert elements.found == usual.found
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
    assert {(site["rows"], site["columns"]) for site in fewer["sites"] if "at" in site} == {(2, 2)}
    assert fewer["left_out"].startswith("The page has no cells of sizes above 2: ")
    assert len(fewer["sites"]) == len(pd.read_parquet(output / "pairs.parquet"))  # their levels and angles stay


def test_without_plotly_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install plotly"):
        analysed(tmp_path / "out", f"left={tmp_path}", f"right={tmp_path}")
    assert not (tmp_path / "out").exists()
