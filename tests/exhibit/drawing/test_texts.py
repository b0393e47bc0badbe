"""Names in figures: short, told apart, and drawable, whatever their characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from deltaw.exhibit.drawing.texts import MOST, apart, inches, math_label, short, update_label, wrap


def test_names_lose_the_folders_that_all_share() -> None:
    assert apart(["/tmp/runs/r8", "/tmp/runs/r64/"]) == ["r8", "r64"]
    assert apart(["x/r8", "r64"]) == ["x/r8", "r64"]
    assert apart(["a", "a/b"]) == ["a", "a/b"]
    assert apart(["/tmp/r8", "/tmp/r8"]) == ["/tmp/r8", "/tmp/r8"]


def test_long_names_of_one_pattern_stay_apart() -> None:
    names = [f"Qwen2.5-7B-Instruct-lora-r{rank}-alpha16-lr1e-4-epochs3-seed42-orders" for rank in (8, 64)]
    low, high = apart(names)
    assert low != high and "…r8-" in low and "…r64-" in high
    assert short("r64-s0-lr0.005") == "r64-s0-lr0.005"


def test_dollars_and_characters_without_a_glyph_are_drawn_as_text() -> None:
    assert short("$a_b$") == r"\$a_b\$"
    assert short("r8-模型\n") == "r8-�"


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=3))
def test_any_names_are_short_and_can_be_drawn(names: list[str]) -> None:
    shown = apart(names)
    assert all(len(name.replace(r"\$", "$")) <= MOST for name in shown)
    figure = Figure()
    for name in shown:
        figure.text(0, 0, f"$i$: {name}; $j$")
        figure.text(0, 0, name)
        figure.text(0, 0, update_label(name))
        figure.text(0, 0, math_label("W", name))
    figure.draw_without_rendering()


@pytest.mark.parametrize(("projection", "label"), [("q", "$W_q$"), ("up_proj", r"$W_\mathrm{up\_proj}$")])
def test_plain_names_of_projections_become_subscripts(projection: str, label: str) -> None:
    assert math_label("W", projection) == label


def test_lines_are_as_wide_as_the_page_lets_them() -> None:
    words = 30 * ["word", "another"]
    lines = wrap(words, 2.0, 8)
    assert " ".join(lines) == " ".join(words)
    assert all(inches(line, 8) <= 2 < inches(f"{line} another", 8) for line in lines[:-1])
