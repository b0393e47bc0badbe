"""The result in Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite

from advice_parts.stages import best
from advice_parts.statements import MARGIN, Statement, cost_of_pattern, ranks_by_module
from deltaw.advice.answer import Advice
from deltaw.advice.judged import Judged
from deltaw.advice.recipes import recipes_of
from deltaw.report.percent import percent
from deltaw.report.table import table
from deltaw.run.directory import RunDirectory


def answer(advice: Advice, statements: Sequence[Statement]) -> str:
    """How often the advice is right, and what it is."""
    recipe, trained = advice.recipe, advice.train
    shipped = f"r={recipe.rank} cut to {recipe.ship.cut}" if recipe and recipe.ship else "no cut"
    rank = f"rank {trained.rank}" if trained and trained.rank else "undecided"
    reference = f" (rank {trained.reference} validates best)" if trained and trained.reference else ""
    missing = advice.missing or (trained and trained.missing) or ""
    return f"**{counts(statements)}** To ship: {shipped}. To train: {rank}{reference}. {missing}".strip()


def counts(statements: Sequence[Statement]) -> str:
    """The verdicts on what the advice calls enough, and on what it does not, each by itself."""
    return " ".join(
        f"{said(enough).capitalize()}: {of['confirmed']} of {of.total()} confirmed, {of[mistake]} {mistake}, "
        f"{of['open']} open."
        for enough, mistake in ((True, "wrong"), (False, "too careful"))
        if (of := Counter(one.verdict for one in statements if one.enough is enough))
    )


def circumstances(run: RunDirectory, known: Judged, others: Judged) -> str:
    """What was trained and measured, and where."""
    hardware, versions = run.record.hardware, run.record.versions
    machine = ", ".join(hardware["accelerators"]) or f"{hardware['machine']} with {hardware['cpus']} CPUs"
    data, seeds = run.record.data, sorted({arm["seed"] for arm in run.record.arms})
    return (
        f"Base {run.record.base['name']}, step {known.step}, seeds {', '.join(map(str, seeds))}; "
        f"{data['learnt']:,} examples to learn, {data['validation']} for validation; the advice knows "
        f"{len(known.labels)} judged examples, and {len(others.labels):,} others check it. "
        f"Trained on {machine} by deltaw {versions['deltaw']}, torch {versions['torch']}."
    )


def table_of_statements(statements: Sequence[Statement], known: Judged, others: Judged) -> str:
    rows = [[one.what, one.known, said(one.enough), one.found, one.verdict] for one in statements]
    head = ["", f"cost by {len(known.labels)} examples", "advice", f"cost by {len(others.labels):,} others", "verdict"]
    return (
        "Cost is the loss that a cut adds to the uncut arm, or a rank to the rank that validates best, as a share of "
        "the gain over the base. Rows are means over the seeds; a row with an arm's name is what its run by itself "
        "would ship. Limits are one-sided at 95 %, over examples and, in means, over seeds; the lower ones of ranks "
        f"hold for all ranks at once. Enough: the advice says that it costs at most {percent(MARGIN)}, with all larger "
        "ones; not shown: the advice refuses to say so. The others confirm an 'enough' if they show a cost of at most "
        f"{percent(MARGIN)}, and it is wrong if they show a higher one; they confirm a refusal if they show a higher "
        f"cost than {percent(MARGIN)}, and it is too careful if they show a cost of at most {percent(MARGIN)}; open: "
        "they do not decide.\n\n" + table(head, rows)
    )


def said(enough: bool | None) -> str:
    return {True: "enough", False: "not shown", None: ""}[enough]


def table_of_patterns(judged: Judged) -> str:
    """Every pattern against uniform arms of its mean rank."""
    rows: list[list[object]] = []
    for one in recipes_of(judged.task):
        if ranks_by_module(one):
            cost = cost_of_pattern(judged, one)
            scale = "of the uniform arm" if one.arms[0].record.get("alpha_pattern") else "alpha / rank of the site"
            found = "better" if cost.high < 0 else "worse" if cost.low > 0 else "no difference shown"
            rows.append([one.rank, scale, cost, found])
    return (
        "A site has as many directions as the largest arm's ΔW has there among its largest singular values of all "
        "sites, one at least. Parameters, learning rate, seeds and examples are those of the uniform rank, which the "
        "cost is measured against on the other examples; limits as above.\n\n"
        + table(["mean rank", "scale", "cost", "pattern is"], rows)
    )


def table_of_sites(patterns: RunDirectory) -> str:
    """The rank of each site."""
    rows: dict[tuple[int, str], dict[int, int]] = {}
    for name, arm in patterns.arms.items():
        for site, lora in patterns.adapter(name).sites.items():
            rows.setdefault((arm["rank"], site.projection), {})[site.layer] = lora.rank
    layers = sorted({layer for ranks in rows.values() for layer in ranks})
    head = ["mean rank", "projection", *(f"layer {layer}" for layer in layers)]
    return table(head, [[*of, *(ranks.get(layer, "") for layer in layers)] for of, ranks in rows.items()])


def table_of_rates(tried: Mapping[int, Mapping[float, float]]) -> str:
    """The validation loss of each rate, the chosen one in bold."""
    rates = sorted({rate for losses in tried.values() for rate in losses})
    rows = [
        [rank, *(loss_in_table(losses[rate], rate == best(losses)) if rate in losses else "" for rate in rates)]
        for rank, losses in tried.items()
    ]
    head = ["rank", *(f"{rate:g}" for rate in rates)]
    return f"Validation loss in nats a token, of one seed that nothing else uses.\n\n{table(head, rows)}"


def loss_in_table(loss: float, chosen: bool) -> str:
    number = f"{loss:.3f}" if isfinite(loss) else "diverged"
    return f"**{number}**" if chosen else number
