"""Tables in Markdown, and the numbers in them."""

from collections.abc import Sequence


def in_markdown(head: Sequence[str], rows: Sequence[Sequence[object]], words: int = 1) -> str:
    """A line of names, then a line for each row.

    Args:
        head: the names of the columns.
        rows: the cells, a column for each name.
        words: the number of columns, from the left, that hold words; the others hold numbers, and stand to the right.
    """
    rules = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, rules, *rows))


def with_error(number: float | None, error: float | None) -> str:
    """A number with three decimals, and its standard error."""
    return f"{in_words(number, '.3f')} ± {not_zero(error, '.3f')}"


def not_zero(number: float | None, form: str) -> str:
    """A number that is never negative, as an error or a p-value: below 0.001 only that is said."""
    return "<0.001" if number is not None and number < 0.001 else in_words(number, form)


def in_words(number: float | None, form: str) -> str:
    """A number as `format` has it, with a minus sign, and none before 0; a dash for None."""
    if number is None:
        return "–"
    text = format(number, form)
    if not any(digit in text for digit in "123456789"):
        text = text.replace("-", "+" if "+" in form else "")
    return text.replace("-", "−")
