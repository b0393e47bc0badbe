"""Tables of the benchmarks, and what is noted for them."""

from math import inf, nan
from pathlib import Path

import pytest
from markdown_table import in_markdown, in_words
from results_file import Results


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    assert in_markdown(["a", "b"], [["x", 1]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize(
    ("number", "form", "words"),
    [
        (None, ".3f", "–"),
        (-0.0004, ".3f", "0.000"),
        (-0.0004, "+.3f", "+0.000"),
        (-0.25, "+.0%", "−25%"),
        (1.5, ".1f", "1.5"),
    ],
)
def test_a_number_in_words(number: float | None, form: str, words: str) -> None:
    assert in_words(number, form) == words


def test_what_is_no_finite_number_is_null(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.json")
    results.add(values=(nan, [inf, 1.0]), of={"it": -inf})
    assert results.found["results"] == [{"values": [None, [None, 1.0]], "of": {"it": None}}]
