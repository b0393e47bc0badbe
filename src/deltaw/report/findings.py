"""The findings, a sentence or two each. Every finding follows from the numbers, whichever way they point."""

from collections.abc import Sequence

from deltaw.report.levels import Control, Level, Levels
from deltaw.report.numbers import Contrast, Summary

HARDLY = 0.01  # a smaller difference of φ is not called a rise or a fall

# What a control was trained on, by the unit that the task is measured in.
CONTROLS = {
    "shuffled": {
        "token": "Without the pairing of prompt and completion",
        "row": "Without the pairing of text and label",
    },
    "random": {"token": "On random tokens instead of completions", "row": "On random labels"},
    "frozen_a": dict.fromkeys(("token", "row"), "With A frozen at its start and only B trained"),
}


def findings(summary: Summary) -> list[str]:
    """The findings on sharing beyond chance, on the leading directions, on the whole spans, and on each control."""
    return [
        _sharing(summary),
        _leading(summary),
        _whole(summary),
        *(_control(summary, control) for control in summary.controls if control.levels),
    ]


def _sharing(summary: Summary) -> str:
    """Whether anything is shared beyond random subspaces, by basis. These numbers do not tell what causes it."""
    names = f"{summary.left.name} and {summary.right.name}{_step(summary)}"
    if not summary.levels:
        return f"Nothing can be compared: in no basis do both {names} have a direction."
    known = [levels for levels in summary.levels if levels.k_star is not None]
    if not known:
        return f"What {names} share cannot be told from chance: {summary.levels[0].reason}."
    beyond = [levels for levels in known if levels.sharing]
    if not beyond and any(levels.first.beyond_random or levels.corner.beyond_random for levels in known):
        return (
            f"k_star finds no direction that {names} share{_in_bases(known)}; φ(1, 1) or φ of the whole spans is "
            "beyond random subspaces at some sites."
        )
    if not beyond:
        return f"Nothing beyond chance: {names} share no direction beyond random subspaces{_in_bases(known)}."
    nothing = [levels for levels in known if not levels.sharing]
    counts = [_count(levels) for levels in beyond] + ([f"none{_in_bases(nothing)}"] if nothing else [])
    return (
        f"Directions of {names} are shared beyond random subspaces; whether the task or the inputs cause it cannot yet "
        f"be told. Directions shared per site by k_star, on average: {'; '.join(counts)}."
    )


def _step(summary: Summary) -> str:
    steps = list(dict.fromkeys(side.step for side in (summary.left, summary.right) if side.step is not None))
    return f" (after step {' and '.join(map(str, steps))})" if steps else ""


def _in_bases(levels: Sequence[Levels]) -> str:
    return f" in the {'basis' if len(levels) == 1 else 'bases'} {', '.join(one.basis for one in levels)}"


def _count(levels: Levels) -> str:
    return f"{levels.k_star:.1f} in the basis {levels.basis} (found at {levels.sharing} of {levels.sites} sites)"


def _leading(summary: Summary) -> str:
    levels = summary.levels_in_basis
    if levels is None:
        return f"φ(1, 1) is undefined at every site: in the basis {summary.basis} an adapter has no direction."
    more = "more" if levels.first.beyond_random else "no more"
    return (
        f"The leading directions of {summary.left.name} and {summary.right.name} have {more} in common than "
        f"random directions {_where(levels.first, levels.sites)}: φ(1, 1) in the basis {summary.basis} is "
        f"{_level(levels.first)}."
    )


def _whole(summary: Summary) -> str:
    levels = summary.levels_in_basis
    if levels is None:
        return "φ of the whole spans is undefined at every site."
    beyond = "is" if levels.corner.beyond_random else "is not"
    sentences = [
        f"φ of the whole spans, of up to {summary.left.rank} and {summary.right.rank} directions, is "
        f"{_level(levels.corner)}",
        f"It {beyond} beyond random subspaces {_where(levels.corner, levels.sites)}",
        *course(summary),
    ]
    return ". ".join(sentences) + "."


def course(summary: Summary) -> list[str]:
    """How φ(i, rank of right) goes from i = 1 to the rank of left; nothing where there is one i, or chance alone."""
    levels = summary.levels_in_basis
    if len(summary.by_i) < 2 or not levels or not (levels.row.beyond_random or levels.corner.beyond_random):
        return []
    first, last = summary.by_i[0], summary.by_i[-1]
    ends = f"from {first:.3f} at i = 1 to {last:.3f} at i = {len(summary.by_i)}"
    half = f", and half of its lead over chance is gone by i = {summary.half_at}" if summary.half_at else ""
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
    spread = f"{level.phi:.3f} on average (from {level.lowest:.3f} to {level.highest:.3f})"
    return f"{spread}, and {level.random:.3f} for random subspaces"


def _control(summary: Summary, control: Control) -> str:
    """How much of the task's gain a control reaches, and its φ(1, 1) beside the one of the task."""
    unit = next(arm["unit"] for arm in summary.losses if arm["arm"] == control.name)
    task = {levels.basis: levels for levels in summary.levels}
    similarities = [
        f"{levels.first.phi:.3f} in the basis {levels.basis} ({of_task.first.phi:.3f} for {summary.right.name})"
        for levels in control.levels
        if (of_task := task.get(levels.basis)) and (levels.basis != "input" or "A" not in task)
    ]
    return (
        f"{CONTROLS[control.control][unit]}, {control.name} {_gain(control.share)}. Its φ(1, 1) with "
        f"{summary.left.name} is {'; '.join(similarities)}. This is one pair of each, and no test."
    )


def _gain(share: float | None) -> str:
    if share is None:
        return "has no gain to compare"
    return f"reaches {share:.0%} of the gain in validation loss" if share > 0 else "gains nothing in validation loss"


def depth(summary: Summary) -> str:
    """Mean φ against depth, as a number and not as a trend."""
    trend = summary.depth
    if trend.layers < 5:
        return f"{_layers(trend.layers).capitalize()} cannot show a trend over depth."
    if trend.rho is None:
        return f"Mean φ is the same at all {_layers(trend.layers)}."
    return (
        f"No trend over depth can be concluded: Spearman's ρ of mean φ against layer is {_signed(trend.rho)} over "
        f"{_layers(trend.layers)}, but layers are not independent, and this is one pair of arms."
    )


def contrast(found: Contrast | None) -> str:
    """The first projection beside the second, as numbers; "" where there are not exactly two."""
    if found is None:
        return ""
    first, second = f"ΔW_{found.first}", f"ΔW_{found.second}"
    if found.layers == 0:
        return f"No cell has a φ of both {first} and {second}."
    difference = (
        f"Mean φ − chance of {first} minus mean φ − chance of {second} is {_signed(found.difference, 3)}; it is "
        f"positive in {found.layers_above} of {_layers(found.layers)}. One pair of arms without a control says nothing "
        f"about {found.first} and {found.second} in general."
    )
    if found.correlation is None or found.correlation_beyond_chance is None:
        return f"{difference} φ does not vary enough over the cells to correlate the two."
    return (
        f"{difference} Over the cells (layer, i, j), φ of {first} and φ of {second} correlate with "
        f"r = {_signed(found.correlation)}; once chance, max(i, j)/d, is subtracted from both, they correlate with "
        f"r = {_signed(found.correlation_beyond_chance)}."
    )


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _signed(number: float, decimals: int = 2) -> str:
    return f"{number:.{decimals}f}".replace("-", "−")
