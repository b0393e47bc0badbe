"""The summary in words. Every sentence follows from the numbers, whichever way they point."""

from collections.abc import Iterator, Sequence
from typing import Any

from deltaw.activations import DRAWS
from deltaw.report.levels import Control, Level, Levels
from deltaw.report.numbers import Contrast, Spread, Summary
from deltaw.study import RARE

UNLIKELY = 0.05  # a p below it is called a trend
HARDLY = 0.01  # of φ: a smaller difference is called none

CONTROLS = {
    "shuffled": "Without the pairing of prompt and completion",
    "random": "On random tokens instead of completions",
    "frozen_a": "With A at its start and B alone trained",
}

MEANINGS = {
    "A": "the right-singular vectors of A, by falling singular value, as in the paper",
    "update": "those of A − A₀, what training added to A",
    "input": "the right-singular vectors of ΔW",
    "output": "the left-singular vectors of ΔW",
}


def findings(summary: Summary) -> list[str]:
    """Sentences: the verdict, the leading directions, the whole subspaces, depth and projections, each control."""
    contrast = f"; {_contrast(summary.contrast)}" if summary.contrast else ""
    return [
        _verdict(summary),
        *(_output(summary, "they", levels) for levels in summary.levels if _has_output(summary, levels)),
        _leading(summary),
        _whole(summary),
        f"{_depth(summary)}{contrast}.",
        *(_without_the_task(summary, control) for control in summary.controls if control.levels),
    ]


def in_words(summary: Summary) -> str:
    """The summary as Markdown."""
    left, right = summary.left, summary.right
    numbered = (f"{number}. {sentence}" for number, sentence in enumerate(findings(summary), start=1))
    sections = [
        f"# φ(A_{{r={left.rank}}}, A_{{r={right.rank}}}, i, j): {left.name} against {right.name}",
        "## Findings",
        "\n".join(numbered),
        "\n".join(f"- {reservation}" for reservation in _reservations(summary)),
        "## What is compared",
        _compared(summary),
        "## Every basis beside chance, on average over the sites",
        _bases(summary),
        *(["## Controls", _controls(summary)] if summary.controls else []),
        "## Spectra, on average over the sites",
        _spectra(summary),
        *(["## Figure 6", _figure(summary)] if "fig6" in summary.exhibits else []),
        "## φ by layer and matrix, over all i",
        _levels(summary),
        "## Depth, and one matrix against the other",
        f"{_depth(summary)}. {_correlations(summary.contrast)}",
        "## Structure in i and j, on average over the sites",
        _structure(summary),
        *(
            ["## Against W: Table 7 of the paper", _amplification(summary.amplification)]
            if summary.amplification
            else []
        ),
        *(["## Validation loss", _losses(summary.losses)] if summary.losses else []),
    ]
    return "\n\n".join(sections) + "\n"


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
    shares = [
        f"on {levels.basis} φ(1, 1) = {levels.first.phi:.3f} ({own.first.phi:.3f}){_beyond_inputs(levels, own)}"
        for levels in control.levels
        if (own := task.get(levels.basis)) and (levels.basis != "input" or "A" not in task)
    ]
    return (
        f"{CONTROLS[control.control]}, {control.name} {_gain(control.share)} and shares with {summary.left.name} "
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
    return "; ".join([whole, *_fall(summary)]) + "."


def _fall(summary: Summary) -> list[str]:
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


def _depth(summary: Summary) -> str:
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


def _correlations(contrast: Contrast | None) -> str:
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


def _reservations(summary: Summary) -> Iterator[str]:
    d = ", ".join(map(str, summary.widths))
    yield (
        f"Random: what random subspaces of ℝ^d give, d = {d} on the basis {summary.basis}: max(i, j)/d on average. A "
        f"site is beyond it where they are as similar in fewer than {RARE:.0%} of cases divided by the number of sites."
    )
    if any(levels.sharing_inputs is not None for levels in summary.levels):
        yield (
            f"Inputs: {DRAWS} draws in which the larger arm's update combines the layer's own inputs at random; "
            "a direction is beyond them where it is shared more closely than in every draw."
        )
    else:
        yield "Against random subspaces only: shared input statistics are not excluded."
    yield "A and input share φ of the whole spans by algebra, wherever B has full rank: they are not two findings."
    if any(levels.k_star is not None for levels in summary.levels):
        yield "k_star counts directions; it is a description at this step, in this basis, against this chance."
    close = [f"{s.arm} on {s.basis} at {s.arbitrary} of {s.sites} sites" for s in summary.spectra if s.arbitrary]
    if close:
        yield (
            f"The first two singular values lie within 5 % of each other in {', '.join(close)}: there the first "
            "direction, and φ(1, 1) with it, is arbitrary, while the span is not."
        )
    if summary.left.lr_tuned is None or summary.right.lr_tuned is None:
        yield "How an adapter that is no arm of a run was trained is not known."
    if summary.left.lr_tuned is False or summary.right.lr_tuned is False:
        yield "Learning rate not tuned per rank."
    if summary.undefined:
        yield f"{summary.undefined} cells are beyond the numerical rank of an adapter: they have no φ, nor count."
    yield from (f"{remark}." for remark in summary.remarks)


def _compared(summary: Summary) -> str:
    sides = (summary.left, summary.right)
    rows: list[list[object]] = [
        ["adapter", *(side.name for side in sides)],
        ["rank", *(side.rank for side in sides)],
        ["step", *("not known" if side.step is None else side.step for side in sides)],
        ["learning rate", *("not known" if side.lr is None else f"{side.lr:g}" for side in sides)],
        ["base", *(side.base or "not known" for side in sides)],
    ]
    bases = "; ".join(
        f"{basis}: {MEANINGS[basis]}" for basis in dict.fromkeys(["A", *(one.basis for one in summary.levels)])
    )
    drawn = f"Bases: {bases}. Cells, figures and the findings about them are those of the basis {summary.basis}."
    return _table(["", "left", "right"], rows) + f"\n\n{drawn}"


def _bases(summary: Summary) -> str:
    r_left, r_right = summary.left.rank, summary.right.rank
    names = [f"φ({cell})" for cell in ("1, 1", f"1, {r_right}", f"{r_left}, {r_right}")]
    head = ["basis", *(name for cell in names for name in (cell, "random", "inputs")), *_counted()]
    rows = [[levels.basis, *_measures(levels)] for levels in summary.levels]
    meaning = (
        "Below `inputs` stands the largest draw, on average. k_star is the number of directions shared beyond random "
        "subspaces, then beyond every draw from the inputs; in brackets the sites that have one."
    )
    reasons = sorted({f"- {one.basis}: {one.reason}" for one in summary.levels if one.reason})
    return "\n\n".join([meaning, _table(head, rows), *(["\n".join(reasons)] if reasons else [])])


def _controls(summary: Summary) -> str:
    head = ["right", "share of the gain", "basis", "φ(1, 1)", "random", "inputs", "φ(1, r)", "random", "inputs"]
    head += ["φ(r, r′)", "random", "inputs", *_counted()]
    rows = [[summary.right.name, "", levels.basis, *_measures(levels)] for levels in summary.levels]
    for control in summary.controls:
        share = _percent(control.share)
        rows += [[control.name, share, levels.basis, *_measures(levels)] for levels in control.levels]
    return (
        f"{summary.left.name} against the same rank, seed and learning rate without the task.\n\n{_table(head, rows)}"
    )


def _counted() -> list[str]:
    return ["k_star", "beyond inputs"]


def _measures(levels: Levels) -> list[str]:
    beyond = "" if levels.k_star_inputs is None else f"{levels.k_star_inputs:.1f} ({levels.sharing_inputs})"
    k_star = "" if levels.k_star is None else f"{levels.k_star:.1f} ({levels.sharing})"
    return [*_beside(levels.first), *_beside(levels.row), *_beside(levels.corner), k_star, beyond]


def _beside(level: Level) -> list[str]:
    inputs = "" if level.inputs is None else f"{level.inputs:.3f}"
    return [f"{level.phi:.3f}", f"{level.random:.3f}", inputs]


def _spectra(summary: Summary) -> str:
    rows = [
        [one.arm, one.basis, one.rank, f"{one.stable_rank:.1f}", f"{one.entropy_rank:.1f}", f"{one.energy_rank:.1f}"]
        for one in summary.spectra
        if one.basis != "output"
    ]
    meaning = (
        "Stable rank ‖·‖²_F / σ₁²; entropy rank exp H(σ² / Σσ²); energy rank, the fewest directions with 90 % of "
        "‖·‖²_F. Those of ΔW stand in the row `input`."
    )
    return f"{meaning}\n\n{_table(['arm', 'basis', 'rank', 'stable', 'entropy', 'energy'], rows)}"


def _figure(summary: Summary) -> str:
    i, j = summary.left.rank, summary.right.rank
    layers = ", ".join(map(str, summary.layers))
    return (
        f"`fig6` has a row for each of the layers {layers} (counted from 1), and in it a panel of each matrix with j "
        f"from 1 to {j}, then one with j from 1 to {summary.zoom}. i runs downward from 1 to {i}, j to the right, and "
        "one colour scale from 0 to 1 serves all panels. The wide panels leave out the cells with j < i, the zoomed "
        "ones those with j > i (grey-blue). That only halves the view: a cell left out of one panel of a site is in "
        "its other one, and those with i = j are in both. `fig6-times-chance` shows φ / (max(i, j)/d) instead."
    )


def _levels(summary: Summary) -> str:
    names = [
        f"{name}, j to {columns}"
        for columns in (summary.right.rank, summary.zoom)
        for name in ("lowest", "mean", "highest", "random")
    ]
    rows = [
        [wide.layer, f"ΔW_{wide.projection}", *_numbers(wide.phi), *_numbers(zoomed.phi)]
        for wide, zoomed in summary.ranges
    ]
    return _table(["layer", "matrix", *names], rows)


def _numbers(phi: Spread) -> list[str]:
    return [f"{number:.3f}" for number in (phi.lowest, phi.mean, phi.highest, phi.chance)]


def _structure(summary: Summary) -> str:
    j = summary.right.rank
    meaning = (
        f"φ(1, k) is the share of the first direction of {summary.left.name} that lies in the first k of "
        f"{summary.right.name}"
    )
    sizes = sorted({cell.i for cell in summary.cells} | {cell.j for cell in summary.cells})
    rows = [
        [k, *_beside_chance(summary, k, k), *_beside_chance(summary, 1, k), *_beside_chance(summary, k, j)]
        for k in sizes
    ]
    table = _table(["k", "φ(k, k)", "random", "φ(1, k)", "random", f"φ(k, {j})", "random"], rows)
    return "; ".join([meaning, *_fall(summary)]) + f".\n\n{table}"


def _beside_chance(summary: Summary, i: int, j: int) -> list[str]:
    cell = summary.cell(i, j)
    return [f"{cell.phi.mean:.3f}", f"{cell.phi.chance:.3f}"] if cell else ["", ""]


def _losses(losses: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            arm["arm"],
            arm["control"] or "",
            *("diverged" if arm[end] is None else f"{arm[end]:.4f}" for end in ("start", "end")),
            _percent(arm["share"]),
        ]
        for arm in losses
    ]
    table = _table(["arm", "control", "start", "end", "share of the task's gain"], rows)
    return (
        "Nats a token, before the first step and at the last validation up to the step compared. The share is that "
        "of a control's gain in the gain of the arm that learned the task at the same rank, seed and learning rate."
        f"\n\n{table}"
    )


def _percent(share: float | None) -> str:
    """Of a gain: nothing where it is not known, and no number where there is a loss instead."""
    if share is None:
        return ""
    return f"{share:.0%}" if share > 0 else "none"


def _amplification(rows: Sequence[dict[str, Any]]) -> str:
    names = ["norm_W", "norm_update", "by_update", "by_W", "by_random", "by_random_closed", "factor"]
    head = [
        "layer",
        "matrix",
        "arm",
        "‖W‖",
        "‖ΔW‖",
        "U, V of ΔW",
        "of W",
        "random",
        "r‖W‖/√(d_out d_in)",
        "‖ΔW‖/‖UᵀWVᵀ‖",
    ]
    lines = [
        [row["layer"], f"ΔW_{row['projection']}", row["arm"], *(f"{row[name]:.3f}" for name in names)] for row in rows
    ]
    return f"Frobenius norms; the three columns from the sixth on are ‖UᵀWVᵀ‖.\n\n{_table(head, lines)}"


def _table(names: list[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
