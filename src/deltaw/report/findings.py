"""The findings, a sentence each. Every one follows from the numbers, whichever way they point."""

from collections.abc import Sequence

from deltaw.report.levels import Control, Level, Levels
from deltaw.report.numbers import Contrast, Summary

HARDLY = 0.01  # of φ: a smaller difference is called none

CONTROLS = {
    "shuffled": {
        "token": "Without the pairing of prompt and completion",
        "row": "Without the pairing of text and label",
    },
    "random": {"token": "On random tokens instead of completions", "row": "On random labels"},
    "frozen_a": dict.fromkeys(("token", "row"), "With A at its start and B alone trained"),
}


def findings(summary: Summary) -> list[str]:
    """Sentences: what is shared beyond chance, the leading directions, the whole subspaces, each control."""
    return [
        _verdict(summary),
        _leading(summary),
        _whole(summary),
        *(_control(summary, control) for control in summary.controls if control.levels),
    ]


def _verdict(summary: Summary) -> str:
    """Whether anything is shared beyond random subspaces, by basis. What causes it, these numbers do not tell."""
    names = f"{summary.left.name} and {summary.right.name}{_step(summary)}"
    if not summary.levels:
        return f"Nothing can be compared: in no basis do {names} both have a direction."
    told = [levels for levels in summary.levels if levels.k_star is not None]
    if not told:
        return f"Of what {names} share nothing can be told from chance: {summary.levels[0].reason}."
    beyond = [levels for levels in told if levels.sharing]
    rest = [levels for levels in told if not levels.sharing]
    if not beyond:
        return f"Nothing beyond chance: {names} share no direction beyond random subspaces, on {_named(told)}."
    counts = "; ".join(f"on {levels.basis} {_count(levels)}" for levels in beyond)
    nothing = f"; none on {_named(rest)}" if rest else ""
    return (
        f"Directions of {names} are shared beyond random subspaces; whether the task or the inputs cause it cannot yet "
        f"be told. Their number: {counts}{nothing}."
    )


def _step(summary: Summary) -> str:
    steps = list(dict.fromkeys(side.step for side in (summary.left, summary.right) if side.step is not None))
    return f", after step {' and '.join(map(str, steps))}," if steps else ""


def _named(levels: Sequence[Levels]) -> str:
    return ", ".join(one.basis for one in levels)


def _count(levels: Levels) -> str:
    return f"{levels.k_star:.1f} on average, at {levels.sharing} of {levels.sites} sites"


def _control(summary: Summary, control: Control) -> str:
    """How much of the gain and of φ appears in a control."""
    task = {levels.basis: levels for levels in summary.levels}
    unit = next(arm["unit"] for arm in summary.losses if arm["arm"] == control.name)
    shares = [
        f"on {levels.basis} φ(1, 1) = {levels.first.phi:.3f} ({own.first.phi:.3f})"
        for levels in control.levels
        if (own := task.get(levels.basis)) and (levels.basis != "input" or "A" not in task)
    ]
    return (
        f"{CONTROLS[control.control][unit]}, {control.name} {_gain(control.share)} and shares with {summary.left.name} "
        f"{'; '.join(shares)}; in brackets what {summary.right.name} shares. One pair each: not a test."
    )


def _gain(share: float | None) -> str:
    if share is None:
        return "has no gain to compare"
    return f"reaches {share:.0%} of the gain in validation loss" if share > 0 else "gains nothing in validation loss"


def _leading(summary: Summary) -> str:
    levels = summary.drawn
    if levels is None:
        return f"φ(1, 1) is undefined at every site: on the basis {summary.basis} an adapter has no direction."
    more = "more" if levels.first.beyond_random else "no more"
    return (
        f"The leading directions of {summary.left.name} and {summary.right.name} have {more} in common than "
        f"random ones {_where(levels.first, levels.sites)}: φ(1, 1) on {summary.basis} is {_level(levels.first)}."
    )


def _whole(summary: Summary) -> str:
    levels = summary.drawn
    if levels is None:
        return "Nor is φ of the whole spans defined anywhere."
    ranks = f"{summary.left.rank} and {summary.right.rank}"
    whole = (
        f"φ of the whole spans, of up to {ranks} directions, is {_level(levels.corner)}; it is "
        f"{'' if levels.corner.beyond_random else 'not '}beyond random ones {_where(levels.corner, levels.sites)}"
    )
    return "; ".join([whole, *fall(summary)]) + "."


def fall(summary: Summary) -> list[str]:
    """How φ(i, rank of right) goes from i = 1 to the rank of left; nothing where there is one i."""
    if len(summary.by_i) < 2:
        return []
    first, last = summary.by_i[0], summary.by_i[-1]
    ends = f"from {first:.3f} at i = 1 to {last:.3f} at i = {len(summary.by_i)}"
    half = f", half of its lead over chance gone by i = {summary.half_at}" if summary.half_at else ""
    if abs(last - first) < HARDLY:
        return [f"φ(i, {summary.right.rank}) hardly changes, {ends}"]
    if last > first:
        return [f"φ(i, {summary.right.rank}) rises {ends}"]
    return [f"φ(i, {summary.right.rank}) falls {ends}{half}"]


def _where(level: Level, sites: int) -> str:
    """At how many sites a level is beyond random subspaces."""
    if level.beyond_random == 0:
        return f"at any of {sites} sites"
    if level.beyond_random == sites:
        return f"at each of {sites} sites"
    return f"at {level.beyond_random} of {sites} sites"


def _level(level: Level) -> str:
    spread = f"{level.phi:.3f} on average ({level.lowest:.3f} to {level.highest:.3f})"
    return f"{spread}, where random subspaces give {level.random:.3f}"


def depth(summary: Summary) -> str:
    """Mean φ against depth, as a number and not as a trend."""
    trend = summary.depth
    if trend.layers < 5:
        return f"{_layers(trend.layers).capitalize()} cannot show a trend over depth."
    if trend.rho is None:
        return f"Mean φ is the same at all {_layers(trend.layers)}."
    return (
        f"A trend over depth is not resolved: Spearman's ρ of mean φ against layer is {_signed(trend.rho)} over "
        f"{_layers(trend.layers)}, but layers are not independent, and this is one pair of arms."
    )


def contrast(found: Contrast | None) -> str:
    """One matrix beside the other, as numbers; nothing where there are not two."""
    if found is None:
        return ""
    one, other = f"ΔW_{found.first}", f"ΔW_{found.second}"
    if found.layers == 0:
        return f"No cell has a φ of both {one} and {other}."
    first = (
        f"Mean φ − chance of {one} minus that of {other}: {_signed(found.difference, 3)}; above zero in "
        f"{found.layers_above} of {_layers(found.layers)}. One pair of arms without a control says nothing about "
        f"{found.first} and {found.second} in general. "
    )
    if found.correlation is None or found.correlation_beyond_chance is None:
        return first + "φ does not vary enough over cells for a correlation of the two."
    return (
        f"{first}Cell by cell (layer, i, j), φ of the two correlate with r = {_signed(found.correlation)}; with "
        f"chance subtracted from both, φ − max(i, j)/d, with r = {_signed(found.correlation_beyond_chance)}."
    )


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _signed(number: float, decimals: int = 2) -> str:
    return f"{number:.{decimals}f}".replace("-", "−")
