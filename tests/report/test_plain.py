"""Names that others gave, in HTML, in Markdown and to the eye."""

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaw.report.plain import in_html, in_markdown, visible

ACTIVE = st.text("aB1 _*~`[]()<>!&|\\:#-.\"'\u202e\n", min_size=1).filter(lambda text: text == text.strip())


@given(ACTIVE)
def test_markdown_shows_the_text_as_it_is(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["strikethrough", "table"])
    html = markdown.renderInline(in_markdown(text))
    assert "<" not in html and unescape(html) == visible(text)


@given(ACTIVE)
def test_html_shows_the_text_as_it_is(text: str) -> None:
    assert not set("<>\"'") & set(in_html(text)) and unescape(in_html(text)) == visible(text)


@pytest.mark.parametrize("text", ["frozen_a", "r8-s0-frozen_a", "arms.train_on_inputs=1"])
def test_an_underscore_inside_of_a_word_needs_no_escape(text: str) -> None:
    assert in_markdown(text) == text


def test_marks_that_turn_the_direction_and_control_characters_are_escapes() -> None:
    assert visible("a\u202eb\x1b[0m\n") == r"a\u202eb\x1b[0m\n"
