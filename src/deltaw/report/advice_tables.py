"""The advice as a section of the summary: its sentences, and a table for each part of it."""

from collections.abc import Iterator, Sequence

from deltaw.advice.answer import Advice, Dropped, Evidence, Learned, Ship, Train
from deltaw.report.advice import margin
from deltaw.report.findings import decimals_of
from deltaw.report.percent import about, at_least, at_most, kept, percent
from deltaw.report.table import table


def section(advice: Advice, words: Sequence[str]) -> str:
    """The section in Markdown, without its title.

    Args:
        advice: the answer.
        words: its sentences; the first one is set in bold.
    """
    answer, *others = words
    evidence = advice.evidence
    parts = [f"**{answer}**", "\n".join(f"- {sentence}" for sentence in others)]
    return "\n\n".join(filter(None, [*parts, *(_tables(advice, evidence) if evidence else ())]))


def _tables(advice: Advice, evidence: Evidence) -> Iterator[str]:
    if advice.ship:
        yield f"### {advice.ship.arm}, cut\n\n{_cuts(advice.ship, evidence)}"
    if advice.recipe:
        yield f"### Its recipe, cut, over {len(advice.recipe.seeds)} seeds\n\n{_cuts(advice.recipe, evidence)}"
    if advice.train and advice.train.ranks:
        yield f"### Ranks that arms were trained at\n\n{_ranks(advice.train, evidence)}"
    if advice.where:
        yield f"### Without ΔW at some sites\n\n{_where(advice.where)}"
    if advice.learned:
        yield f"### What each arm learned\n\n{_learned(advice.learned, evidence)}"


def _cuts(ship: Ship, evidence: Evidence) -> str:
    head = ["cut", "parameters", f"cost, nats a {evidence.unit}", "kept", "at least", "passes", "examples needed"]
    rows = [
        [
            cut.cut,
            percent(cut.parameters),
            _with_error(cut.cost, cut.se),
            *kept(cut.kept, cut.kept_at_least),
            "yes" if cut.passes else "no",
            "" if cut.needed is None else about(cut.needed),
        ]
        for cut in ship.cuts
    ]
    return (
        "Cost is the loss added, ± its standard error. Kept is a share of the gain, with its lower limit, one-sided at "
        f"95 %. A cut passes if it and all larger cuts are shown to lose less than {margin(evidence)} of the gain. "
        f"Examples needed would probably decide a cut that is not decided.\n\n{table(head, rows)}"
    )


def _ranks(train: Train, evidence: Evidence) -> str:
    head = ["rank", "learning rate", "tried", "seeds", f"loss, nats a {evidence.unit}", "cost", "at least", "at most"]
    rows = [
        [
            one.rank,
            f"{one.lr:g}",
            ", ".join(f"{lr:g}" for lr in one.lrs),
            len(one.seeds),
            f"{one.loss:.3f}",
            percent(one.cost),
            "" if one.cost_at_least is None else at_least(one.cost_at_least),
            "" if one.cost_at_most is None else at_most(one.cost_at_most),
            "reference" if one.rank == train.reference else "yes" if one.enough else "",
        ]
        for one in train.ranks
    ]
    return (
        "Cost is loss minus the loss of the rank that is best on the validation examples, as a share of that rank's "
        "gain. What it costs at most is a limit for this rank by itself, one-sided at 95 %; what it costs at least "
        "holds for all ranks at once, whichever is the best. A rank is enough if it and all larger ones up to the best "
        f"are shown to cost at most {margin(evidence)}.\n\n{table([*head, 'enough'], rows)}"
    )


def _where(where: Sequence[Dropped]) -> str:
    rows = [
        [
            one.what,
            percent(one.cost),
            at_least(one.at_least),
            at_most(one.at_most),
            f"{one.p:.2g}",
            "" if one.sites is None else percent(one.sites),
        ]
        for one in where
    ]
    return (
        "Cost is the loss added, as a share of the gain. The limits (two-sided, 95 %) hold for all of a kind at once. "
        "p is one-sided, and corrected for all sites (Holm).\n\n"
        f"{table(['without', 'cost', 'at least', 'at most', 'p', 'its sites one by one'], rows)}"
    )


def _learned(learned: Sequence[Learned], evidence: Evidence) -> str:
    head = ["arm", "control", f"gain, nats a {evidence.unit}", "learned"]
    rows = [
        [
            one.arm,
            one.control or "",
            "not known" if one.gain is None else _with_error(one.gain, one.se),
            f"no: it {one.doubt}" if one.doubt else "yes",
        ]
        for one in learned
    ]
    return f"Gain is the loss of the base minus the arm's, on the judged examples.\n\n{table(head, rows)}"


def _with_error(value: float, error: float | None) -> str:
    decimals = decimals_of(error or 0.0)
    number = f"{value:.{decimals}f}".replace("-", "−")
    return number if error is None else f"{number} ± {error:.{decimals}f}"
