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
    small = error is not None and error < 0.0005
    return f"{in_words(number, '.3f')} ± {'<0.001' if small else in_words(error, '.3f')}"


def in_words(number: float | None, form: str) -> str:
    """A number as `format` has it, with a minus sign, and none before 0; a dash for None."""
    if number is None:
        return "–"
    text = format(number, form)
    if not any(digit in text for digit in "123456789"):
        text = text.replace("-", "+" if "+" in form else "")
    return text.replace("-", "−")
