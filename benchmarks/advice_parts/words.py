"""What `verify_advice.py` found, in words and tables: each from its file of results."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from markdown_table import in_markdown
from results_file import machine_of, of_part

from deltaw.report.percent import at_least, at_most, percent

Found = Mapping[str, Any]
STATEMENT, PATTERN, RATE = "statement", "pattern of ranks", "learning rate"


def circumstances(found: Found) -> str:
    """What was trained and measured, and where."""
    versions = found["trained_on"]["versions"]
    return (
        f"Base {found['base']}, step {found['step']}, seeds {', '.join(map(str, found['seeds']))}; "
        f"{found['learnt']:,} examples to learn, {found['validation']} for validation; the advice knows "
        f"{found['known']} judged examples, and {found['others']:,} others check it. Trained by deltaw "
        f"{versions['deltaw']} with torch {versions['torch']}; measured on {machine_of(found)}."
    )


def answer(found: Found) -> str:
    """What the advice is."""
    recipe, trained = found["advice"]["recipe"] or {}, found["advice"]["train"] or {}
    shipped = f"r={recipe['rank']} cut to {recipe['ship']['cut']}" if recipe.get("ship") else "no cut"
    rank = f"rank {trained['rank']}" if trained.get("rank") else "undecided"
    reference = f" (rank {trained['reference']} validates best)" if trained.get("reference") else ""
    return f"To ship: {shipped}. To train: {rank}{reference}."


def counts(found: Found) -> str:
    """The verdicts on what the advice calls enough, and on what it does not, each by itself."""
    return " ".join(_counted(found, *kind) for kind in (("enough", "wrong"), ("not shown", "too careful")))


def _counted(found: Found, said: str, mistake: str) -> str:
    of = Counter(one["verdict"] for one in of_part(found, STATEMENT) if one["said"] == said)
    verdicts = f"{of['confirmed']} confirmed, {of[mistake]} {mistake}, {of['open']} open"
    return f"{of.total()} statements say '{said}': {verdicts}."


def table_of_statements(found: Found) -> str:
    """Every statement, its cost on the examples of the advice and on the others, and the verdict."""
    rows = [
        [one["what"], cost_of(one["known"]), one["said"], cost_of(one["found"]), one["verdict"]]
        for one in of_part(found, STATEMENT)
    ]
    head = ["", f"cost by {found['known']} examples", "the advice", f"cost by {found['others']:,} others", "verdict"]
    return in_markdown(head, rows, words=len(head))


def table_of_patterns(found: Found) -> str:
    """Every pattern against uniform arms of its mean rank."""
    rows = [[one["rank"], one["scale"], cost_of(one["cost"])] for one in of_part(found, PATTERN)]
    head = ["mean rank", "scale of a site", "cost against the uniform rank"]
    return in_markdown(head, rows, words=len(head))


def table_of_rates(found: Found) -> str:
    """The validation loss of each learning rate, in nats a token, the chosen one in bold."""
    tried = {(one["rank"], one["lr"]): one for one in of_part(found, RATE)}
    rates = sorted({rate for _, rate in tried})
    rows = [
        [rank, *(_loss(tried[rank, rate]) if (rank, rate) in tried else "" for rate in rates)]
        for rank in dict.fromkeys(rank for rank, _ in tried)
    ]
    return in_markdown(["rank", *(f"{rate:g}" for rate in rates)], rows)


def cost_of(cost: Mapping[str, Any]) -> str:
    """A share of the gain with its limits."""
    if cost["low"] is None or cost["high"] is None:
        return "no clear gain"
    return f"{percent(cost['share'])} ({at_least(cost['low'])} to {at_most(cost['high'])})"


def _loss(one: Found) -> str:
    """None is a loss that was not finite."""
    number = "diverged" if one["loss"] is None else f"{one['loss']:.3f}"
    return f"**{number}**" if one["chosen"] else number
