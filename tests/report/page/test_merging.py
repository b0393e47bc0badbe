"""The table of sites that a page has of adapters to merge."""

from math import nan

import pandas as pd
import pytest

from deltaw.report.page import merging
from deltaw.report.page.merging import merge_section


def rows(pairs: int, sites: int) -> pd.DataFrame:
    """With a column that no other part of deltaw knows."""
    table = pd.DataFrame({"layer": range(1, sites + 1), "projection": "q", "unheard_of": -0.01234, "undefined": nan})
    of_pairs = [table.assign(left="a", right=f"b{n}", step_left=0, step_right=0) for n in range(pairs)]
    return pd.concat(of_pairs, ignore_index=True)


def test_every_number_of_the_table_is_shown_whatever_its_columns_are() -> None:
    html = merge_section([], rows(1, 2))
    assert "<th scope=col>unheard of</th>" in html and "<td>−0.0123</td><td></td>" in html and "nan" not in html
    assert "<th scope=col>left</th>" not in html and "<th scope=col>right</th>" in merge_section([], rows(2, 2))


def test_a_long_table_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MOST_ROWS", 3)
    html = merge_section([], rows(2, 2))
    assert html.count("<tr>") == 1 + 3 and "the first 3 of 4 rows; merge.parquet has all" in html
    assert "the first" not in merge_section([], rows(1, 2))


def test_adapters_that_are_not_to_be_merged_have_no_section() -> None:
    assert merge_section([], rows(1, 0)) == ""
