"""Names that others gave, made harmless: in HTML, in Markdown, and to the eye."""

import html
import re
from dataclasses import fields, is_dataclass
from typing import Any

ACTIVE = r"[\\`*~<>&|]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])"  # in Markdown; _ inside of a word is not
CODE = ("command",)  # fields that the report sets as code, in which Markdown knows no escapes


def visible(text: str) -> str:
    """The text with escapes for line breaks, control characters and marks that turn the direction, as \\u202e."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def in_html(text: object) -> str:
    """The text as the content of an element, or as an attribute in quotes."""
    return html.escape(visible(str(text)))


def in_markdown(value: Any) -> Any:
    """A text that Markdown shows as it is: no tag, code, emphasis or cell of a table begins in it, and no link under
    another text. Some programs make a link of a bare address, which then leads where it says.

    Of a record, a list, a tuple or an object of JSON, a copy in which every text is; names of fields and keys stay.
    """
    if isinstance(value, str):
        return re.sub(ACTIVE, r"\\\g<0>", visible(value))
    if is_dataclass(value) and not isinstance(value, type):
        kept = {one.name: getattr(value, one.name) for one in fields(value)}
        return type(value)(
            **{name: in_code(item) if name in CODE else in_markdown(item) for name, item in kept.items()}
        )
    if isinstance(value, list | tuple):
        items = map(in_markdown, value)
        return value._make(items) if hasattr(value, "_make") else type(value)(items)  # _make: of a NamedTuple
    if isinstance(value, dict):
        return {key: in_markdown(item) for key, item in value.items()}
    return value


def in_code(text: str | None) -> str | None:
    """The text between the two backticks of Markdown's code, which no backtick of its own may end."""
    return visible(text).replace("`", "'") if text else text
