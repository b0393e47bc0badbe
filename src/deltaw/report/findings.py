"""The findings, a sentence each. Every one follows from the numbers, whichever way they point."""

from collections.abc import Sequence

from deltaw.report.levels import Control, Level, Levels
from deltaw.report.numbers import Contrast, Summary

UNLIKELY = 0.05  # a p below it is called a trend
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
    """Sentences: the verdict, the leading directions, the whole subspaces, depth and projections, each control."""
    contrast = f"; {_contrast(summary.contrast)}" if summary.contrast else ""
    return [
        _verdict(summary),
        *(_output(summary, "they", levels) for levels in summary.levels if _has_output(summary, levels)),
        _leading(summary),
        _whole(summary),
        f"{depth(summary)}{contrast}.",
        *(_without_the_task(summary, control) for control in summary.controls if control.levels),
    ]


def _verdict(summary: Summary) -> str:
    """Whether anything is shared beyond chance, by basis, and by which chance; the output side is told by itself."""
    names = f"{summary.left.name} and {summary.right.name}{_step(summary)}"
    if not summary.levels:
        return f"Nothing can be compared: in no basis do {names} both have a direction."
    told = [levels for levels in summary.levels if levels.k_star is not None]
    if not told:
        return f"Of what {names} share nothing can be told from chance: {summary.levels[0].reason}."
    weighed = [levels for levels in told if levels.basis != "output"]
    if not weighed:
        return _output(summary, names, told[0])
    against = "what the layers' own inputs give" if weighed[0].sharing_inputs is not None else "random subspaces"
    beyond = [levels for levels in weighed if levels.beyond_chance]
    rest = [levels for levels in weighed if not levels.beyond_chance]
    if not beyond:
        return f"Nothing beyond chance: {names} share no direction beyond {against}, on {_named(weighed)}."
    counts = "; ".join(f"on {levels.basis} {_count(levels)}" for levels in beyond)
    nothing = f"; nothing on {_named(rest)}" if rest else ""
    return f"{names} share directions beyond {against}: {counts}{nothing}."


def _has_output(summary: Summary, levels: Levels) -> bool:
    """Whether the output side is to be told besides other bases."""
    return levels.basis == "output" and levels.k_star is not None and len(summary.levels) > 1


def _step(summary: Summary) -> str:
    steps = list(dict.fromkeys(side.step for side in (summary.left, summary.right) if side.step is not None))
    return f", after step {' and '.join(map(str, steps))}," if steps else ""


def _named(levels: Sequence[Levels]) -> str:
    return ", ".join(one.basis for one in levels)


def _count(levels: Levels) -> str:
    """How many directions, at how many sites: beyond the inputs where they are known."""
    count, sites = levels.k_star, levels.sharing
    if levels.k_star_inputs is not None and levels.sharing_inputs is not None:
        count, sites = levels.k_star_inputs, levels.sharing_inputs
    return f"{count:.1f} on average, at {sites} of {levels.sites} sites"


def _output(summary: Summary, names: str, levels: Levels) -> str:
    """No draw from inputs is defined there: what is beyond random subspaces is weighed by the controls."""
    own = f"On the output side {names} share {_count(levels)}, beyond random subspaces"
    others = [
        f"{one.k_star:.1f} with {control.name}"
        for control in summary.controls
        for one in control.levels
        if one.basis == "output" and one.k_star is not None
    ]
    if not others:
        return f"{own}: without a control arm that says nothing of the task."
    return f"{own}; {summary.left.name} shares {', '.join(others)}."


def _without_the_task(summary: Summary, control: Control) -> str:
    """How much of the gain and of φ appears in a control."""
    task = {levels.basis: levels for levels in summary.levels}
    unit = next(arm["unit"] for arm in summary.losses if arm["arm"] == control.name)
    shares = [
        f"on {levels.basis} φ(1, 1) = {levels.first.phi:.3f} ({own.first.phi:.3f}){_beyond_inputs(levels, own)}"
        for levels in control.levels
        if (own := task.get(levels.basis)) and (levels.basis != "input" or "A" not in task)
    ]
    return (
        f"{CONTROLS[control.control][unit]}, {control.name} {_gain(control.share)} and shares with {summary.left.name} "
        f"{'; '.join(shares)}; in brackets what {summary.right.name} shares."
    )


def _beyond_inputs(control: Levels, task: Levels) -> str:
    if control.k_star_inputs is None or task.k_star_inputs is None:
        return ""
    return f" and {control.k_star_inputs:.1f} directions beyond the inputs ({task.k_star_inputs:.1f})"


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
    random = f"where random subspaces give {level.random:.3f}"
    return f"{spread}, {random}" + ("" if level.inputs is None else f" and the inputs up to {level.inputs:.3f}")


def depth(summary: Summary) -> str:
    """Whether mean φ rises or falls over the layers; without a full stop."""
    trend = summary.depth
    if trend.layers < 5:
        return f"A trend over depth cannot be tested with {_layers(trend.layers)}"
    if trend.rho is None or trend.p is None:
        return f"Mean φ is the same at all {_layers(trend.layers)}"
    p = f"p = {trend.p:.3f}" if trend.p >= 0.001 else "p < 0.001"
    numbers = f"Spearman's ρ = {_signed(trend.rho)}, {p}, {_layers(trend.layers)}"
    if trend.p >= UNLIKELY:
        return f"Mean φ shows no trend over depth ({numbers})"
    return f"Mean φ {'rises' if trend.rho > 0 else 'falls'} with depth ({numbers})"


def _contrast(contrast: Contrast) -> str:
    one, other = f"ΔW_{contrast.first}", f"ΔW_{contrast.second}"
    if contrast.layers == 0:
        return f"no cell has a φ of both {one} and {other}"
    count = f"{contrast.layers_above} of {_layers(contrast.layers)}"
    if abs(contrast.difference) < HARDLY:
        near = f"{one} and {other} differ by {abs(contrast.difference):.3f} in mean φ − chance"
        return f"{near}, {one} being higher in {count}"
    side = "above" if contrast.difference > 0 else "below"
    return f"{one} lies {abs(contrast.difference):.3f} {side} {other} in mean φ − chance, being higher in {count}"


def correlations(contrast: Contrast | None) -> str:
    """One matrix against the other, cell by cell; nothing where there are not two."""
    if contrast is None:
        return ""
    first = f"{_contrast(contrast)[0].upper()}{_contrast(contrast)[1:]}. "
    if contrast.correlation is None or contrast.correlation_beyond_chance is None:
        return first + "φ does not vary enough over cells for a correlation of the two."
    return (
        f"{first}Cell by cell (layer, i, j), φ of the two correlate with r = {_signed(contrast.correlation)}; with "
        f"chance taken off both, φ − max(i, j)/d, with r = {_signed(contrast.correlation_beyond_chance)}."
    )


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")
