"""The findings, a sentence or two each. Every finding follows from the numbers, whichever way they point."""

from collections.abc import Iterator, Sequence
from math import floor, log10

from deltaw.report.learning import Learning
from deltaw.report.levels import Levels
from deltaw.report.numbers import Summary
from deltaw.report.sharing import ENOUGH, LEVEL, TESTED, Contrast, Excess, Slope

HARDLY = 0.01  # a smaller difference of φ is not called a rise or a fall, or more than chance
NAMES = {"first": "φ(1, 1)", "corner": "φ of the whole spans"}  # of the tested measures


def findings(summary: Summary) -> list[str]:
    """At most six findings: what was learned, what is shared because of it, and what beyond chance."""
    return [*_learned(summary), *_because_of_learning(summary), _beyond_chance(summary), *_risen(summary)]


def _learned(summary: Summary) -> Iterator[str]:
    doubtful = [one for one in summary.learning if one.doubt]
    known = [one for one in summary.learning if one.gain is not None]
    if doubtful:
        reasons = "; ".join(f"{one.arm} {one.doubt}" for one in doubtful)
        yield (
            "There is no verdict about what learning causes, since not every arm can be said to have learned: "
            f"{reasons}."
        )
    elif not known:
        yield f"Whether {_names(summary)} learned anything is not known: their validation losses are not recorded."
    elif len(known) < len(summary.learning):
        missing = ", ".join(one.arm for one in summary.learning if one.gain is None)
        yield f"Whether {missing} learned anything is not known: no validation loss is recorded."
    else:
        yield f"{_arms(known)} learned: {_gains(known)}."


def _arms(learning: Sequence[Learning]) -> str:
    return f"All {len(learning)} arms" if len(learning) > 2 else " and ".join(one.arm for one in learning)


def _gains(learning: Sequence[Learning]) -> str:
    gains = [one.gain for one in learning if one.gain is not None]
    unit, errors = learning[0].unit, [one.se for one in learning if one.se is not None]
    decimals = max(decimals_of(size) for size in errors or gains)
    if len(gains) > 2:
        largest = f"{max(errors, default=0):.{decimals}f}"
        known = f", each with a standard error of at most {largest} over the examples" if errors else ""
        return (
            f"the validation loss fell by {min(gains):.{decimals}f} to {max(gains):.{decimals}f} nats a {unit}{known}"
        )
    each = [
        f"{one.gain:.{decimals}f}" + (f" ± {one.se:.{decimals}f}" if one.se is not None else "") for one in learning
    ]
    error = " (± standard error over the examples)" if errors else ""
    return f"the validation loss fell by {' and '.join(each)} nats a {unit}{error}"


def decimals_of(size: float) -> int:
    """The decimals of numbers whose error is `size`: up to its first digit, from 2 to 6."""
    return min(max(2, -floor(log10(size))), 6) if size > 0 else 2


def _because_of_learning(summary: Summary) -> Iterator[str]:
    """What is shared beyond the control pair, if every arm learned. Levels and numbers of seeds are stated."""
    if any(one.doubt for one in summary.learning) or not summary.excess:
        return
    known = [one for one in _tellable(summary.excess) if one.measure in TESTED and one.excess is not None]
    if not known:
        yield (
            f"What {_names(summary)} share because of what they learned cannot be told without a control pair: arms of "
            "the task have shadows for it (arms.shadows=1)."
        )
        return
    if any(one.gain is None for one in summary.learning):
        return
    seeds = max(one.seeds for one in known)
    if seeds < ENOUGH:
        yield _without_test(summary, known, seeds)
    else:
        yield _with_test(known, seeds)
    yield from _share_of_the_control(summary, known)


def _without_test(summary: Summary, known: Sequence[Excess], seeds: int) -> str:
    most = max(known, key=lambda one: one.excess or 0)
    above = list(dict.fromkeys(one.basis for one in known if (one.excess or 0) > HARDLY))
    names = f"{_names(summary)}, of one seed and so of one order of examples," if summary.one_order else "The arms"
    beginning = f"{_count(seeds).capitalize()} not a test of what learning causes (it takes {ENOUGH}). {names} share"
    if not above:
        return f"{beginning} no more than their control pair, which has nothing to learn, in any basis."
    return (
        f"{beginning} more than their control pair, which has nothing to learn, {_in(above)}; the largest difference "
        f"is in the basis {most.basis}, where {NAMES[most.measure]} beyond chance is {_number(most.pair)} for the arms "
        f"and {_number(most.control)} for the control pair."
    )


def _with_test(known: Sequence[Excess], seeds: int) -> str:
    tested = [one for one in known if one.p is not None]
    shown, others = ([one for one in tested if one.shown is wanted] for wanted in (True, False))
    level = f"{seeds} seeds; {len(tested)} tests, at a level of {LEVEL:.0%} for all of them together"
    if not shown:
        return f"Nothing is shown to be shared because of what the arms learned, beyond the control pair ({level})."
    rest = f" Not shown: {_listed(others)}." if others else ""
    return f"Shared because of what the arms learned, beyond the control pair ({level}): {_listed(shown)}.{rest}"


def agreement(summary: Summary) -> str:
    """Whether the leading directions agree beyond the control pair. φ explains an advice, and never decides it."""
    what = f"the leading directions of {_names(summary)} agree beyond the control pair"
    known = [one for one in _tellable(summary.excess) if one.measure == "first" and one.excess is not None]
    tested = [one for one in known if one.p is not None]
    if not known or not all(one.gain is not None and one.doubt is None for one in summary.learning):
        return f"φ explains, and does not decide. Here it cannot tell whether {what}{_reason(summary, known)}"
    if not tested:
        seeds = max(one.seeds for one in known)
        return f"φ explains, and does not decide. {_count(seeds).capitalize()} no test of whether {what}"
    shown = [one.basis for one in tested if one.shown]
    tests = len([one for one in summary.excess if one.p is not None])
    level = f"{tested[0].seeds} seeds; {tests} tests, at a level of {LEVEL:.0%} for all of them together"
    verdict = f"{what} {_in(shown)}" if shown else f"it is not shown that {what}"
    return f"φ explains, and does not decide: {verdict}{_step(summary)} ({level})"


def _reason(summary: Summary, known: Sequence[Excess]) -> str:
    """Why the control pair tells nothing."""
    if not known:
        return ": there is no control pair (arms.shadows=1)"
    return ": not every arm is known to have learned"


def _listed(tested: Sequence[Excess]) -> str:
    """The measures with the bases that they were tested in."""
    bases = {measure: [one.basis for one in tested if one.measure == measure] for measure in TESTED}
    return "; ".join(f"{NAMES[measure]} in {', '.join(names)}" for measure, names in bases.items() if names)


def _tellable(known: Sequence[Excess]) -> list[Excess]:
    """Without the basis input where A is there: their whole spans are the same."""
    bases = {one.basis for one in known}
    return [one for one in known if one.basis != "input" or "A" not in bases]


def _share_of_the_control(summary: Summary, known: Sequence[Excess]) -> Iterator[str]:
    """Which side tells: where the control pair has most of what the arms share, that takes no learning."""
    first = [one for one in known if one.measure == "first" and one.pair >= HARDLY]
    shares = {one.basis: max(0.0, (one.control or 0) / one.pair) for one in first}
    ordered = sorted(shares.items(), key=lambda share: share[1])
    each = ", ".join(f"{share:.0%} in the basis {basis}" for basis, share in ordered)
    order = "; it does not show what one order of examples adds" if summary.one_order else ""
    if each:
        yield f"Of φ(1, 1) beyond chance, the control pair alone has {each}{order}."


def _beyond_chance(summary: Summary) -> str:
    """Whether anything is shared beyond random subspaces, by basis. These numbers do not tell what causes it."""
    names = f"{_names(summary)}{_step(summary)}"
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
    most = max(beyond, key=lambda levels: (levels.basis == summary.basis, levels.k_star or 0))
    return (
        f"Beyond random subspaces, whatever the cause, {names} share {most.k_star:.1f} directions per site in the "
        f"basis {most.basis}, with a mean cos² of {most.cos2:.2f}."
    )


def _names(summary: Summary) -> str:
    return f"{summary.left.name} and {summary.right.name}"


def _step(summary: Summary) -> str:
    steps = list(dict.fromkeys(side.step for side in (summary.left, summary.right) if side.step is not None))
    return f" (after step {' and '.join(map(str, steps))})" if steps else ""


def _in_bases(levels: Sequence[Levels]) -> str:
    return f" {_in([one.basis for one in levels])}"


def _in(bases: Sequence[str]) -> str:
    return f"in the {'basis' if len(bases) == 1 else 'bases'} {', '.join(bases)}"


def _risen(summary: Summary) -> Iterator[str]:
    if risen := [control.name for control in summary.controls if control.rose]:
        yield f"The validation loss of {', '.join(risen)} rose above the base's: such a control supports no verdict."


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


def depth(slope: Slope | None) -> str:
    """The trend over depth: a slope with its error over seeds, or the smallest one that could have been seen."""
    if slope is None:
        return "No site has directions in this basis."
    if slope.over_seeds is None:
        return f"{_layers(slope.layers).capitalize()} cannot show a trend over depth."
    found, what = slope.over_seeds, f"φ of the whole spans beyond {slope.beyond}"
    change = f"from the first of {_layers(slope.layers)} to the last, {what} changes by {_number(found.mean)}"
    if found.seeds < ENOUGH:
        return f"A trend over depth is not resolved: {change} along a straight line, and {_count(found.seeds)} no test."
    change += f" ± {found.se:.3f} along a straight line ({found.seeds} seeds)"
    if abs(found.mean) <= found.half_width(LEVEL):
        return (
            f"A trend over depth is not resolved: {change}. A change of about {found.detectable(LEVEL):.3f} would have "
            f"been found in 80% of cases (two-sided, {LEVEL:.0%})."
        )
    return f"There is a trend over depth (two-sided, {LEVEL:.0%}): {change}."


def contrast(found: Contrast | None) -> str:
    """The first projection minus the second, beside the control pair's; "" where there are not exactly two."""
    if found is None:
        return ""
    first, second, over, control = f"ΔW_{found.first}", f"ΔW_{found.second}", found.over_seeds, ""
    if found.control is not None:
        control = f" ({_number(found.pair)} minus {_number(found.control)} of the control pair)"
    sentence = f"φ of the whole spans beyond {found.beyond}, {first} minus {second}, is {_number(over.mean)}{control}"
    if over.seeds < ENOUGH:
        return f"{sentence}; {_count(over.seeds)} no test."
    resolved = "this is resolved" if abs(over.mean) > over.half_width(LEVEL) else "this is not resolved"
    return f"{sentence} ± {over.se:.3f} over {over.seeds} seeds: {resolved} (two-sided, {LEVEL:.0%})."


def _count(seeds: int) -> str:
    return "one seed is" if seeds == 1 else f"{seeds} seeds are"


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}".replace("-", "−")
