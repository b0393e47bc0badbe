"""The summary in words. Every sentence follows from the numbers, whichever way they point."""

from collections.abc import Iterator, Sequence

from deltaw.report.losses import Losses
from deltaw.report.numbers import RARE, Cell, Spread, Summary

UNLIKELY = 0.05  # a p below it is called a trend
HARDLY = 0.01  # of φ: a smaller difference is called none


def findings(summary: Summary) -> list[str]:
    """Three sentences: the leading directions, the subspaces as a whole, depth and q against v."""
    return [_leading(summary), _whole(summary), f"{_depth(summary)}; {_contrast(summary)}."]


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
        "## The figure",
        _figure(summary),
        "## φ by layer and matrix, over all i",
        _levels(summary),
        "## Depth, and ΔW_q against ΔW_v",
        f"{_depth(summary)}. {_contrast(summary)}. {_correlations(summary)}",
        "## Structure in i and j, on average over the sites",
        _structure(summary),
        *(["## Validation loss", _losses(summary.losses)] if summary.losses else []),
    ]
    return "\n\n".join(sections) + "\n"


def _leading(summary: Summary) -> str:
    cell = summary.cell(1, 1)
    if cell is None:
        return "φ(1, 1) is undefined at every site: an A is zero."
    more = "more" if cell.beyond_chance else "no more"
    return (
        f"The leading directions of {summary.left.name} and {summary.right.name} have {more} in common than "
        f"random ones {_where(cell)}: φ(1, 1) is {_level(cell)}."
    )


def _whole(summary: Summary) -> str:
    i, j = summary.left.rank, summary.right.rank
    cell = summary.cell(i, j)
    if cell is None:
        return f"φ({i}, {j}) is undefined at every site: an A has fewer directions than its rank."
    beyond = "beyond chance" if cell.beyond_chance else "not beyond chance"
    whole = f"Between all {i} and all {j} directions, φ({i}, {j}) is {_level(cell)}, {beyond} {_where(cell)}"
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


def _where(cell: Cell) -> str:
    """At how many sites a cell is beyond chance."""
    if cell.beyond_chance == 0:
        return f"at any of {cell.sites} sites"
    if cell.beyond_chance == cell.sites:
        return f"at each of {cell.sites} sites"
    return f"at {cell.beyond_chance} of {cell.sites} sites"


def _level(cell: Cell) -> str:
    spread = f"{cell.phi.lowest:.3f} to {cell.phi.highest:.3f}"
    return f"{cell.phi.mean:.3f} on average ({spread}), where chance gives {cell.phi.chance:.3f}"


def _depth(summary: Summary) -> str:
    trend = summary.depth
    if trend.layers < 4:
        return f"A trend over depth cannot be tested with {_layers(trend.layers)}"
    if trend.rho is None or trend.p is None:
        return f"Mean φ is the same at all {_layers(trend.layers)}"
    p = f"p = {trend.p:.3f}" if trend.p >= 0.001 else "p < 0.001"
    numbers = f"Spearman's ρ = {_signed(trend.rho)}, {p}, {_layers(trend.layers)}"
    if trend.p >= UNLIKELY:
        return f"Mean φ shows no trend over depth ({numbers})"
    return f"Mean φ {'rises' if trend.rho > 0 else 'falls'} with depth ({numbers})"


def _contrast(summary: Summary) -> str:
    contrast = summary.contrast
    if contrast.layers == 0:
        return "no cell has a φ of both ΔW_q and ΔW_v"
    count = f"{contrast.layers_above} of {_layers(contrast.layers)}"
    if abs(contrast.difference) < HARDLY:
        return f"ΔW_q and ΔW_v differ by {abs(contrast.difference):.3f} in mean φ, ΔW_q being higher in {count}"
    side = "above" if contrast.difference > 0 else "below"
    return f"ΔW_q lies {abs(contrast.difference):.3f} {side} ΔW_v in mean φ, being higher in {count}"


def _correlations(summary: Summary) -> str:
    contrast = summary.contrast
    if contrast.correlation is None or contrast.correlation_beyond_chance is None:
        return "φ does not vary enough over cells for a correlation of the two."
    return (
        f"Cell by cell (layer, i, j), φ of ΔW_q and of ΔW_v correlate with "
        f"r = {_signed(contrast.correlation)}; with chance taken off both, φ − max(i, j)/d, with "
        f"r = {_signed(contrast.correlation_beyond_chance)}."
    )


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def _reservations(summary: Summary) -> Iterator[str]:
    d = ", ".join(map(str, summary.widths))
    yield (
        f"Chance is what random subspaces of ℝ^d give, d = {d}: max(i, j)/d on average. A site is beyond chance "
        f"where they are as similar in fewer than {RARE:.0%} of cases divided by the number of sites."
    )
    yield (
        "Two adapters that read the same inputs can share directions for that alone, whatever they learned: "
        "nothing here excludes it."
    )
    if summary.left.lr_tuned is None or summary.right.lr_tuned is None:
        yield "How an adapter that is no arm of a run was trained is not known."
    if summary.left.lr_tuned is False or summary.right.lr_tuned is False:
        yield "Learning rate not tuned per rank."
    if summary.undefined:
        yield f"{summary.undefined} cells are beyond the numerical rank of an A: they have no φ, nor count."
    if summary.warning:
        yield f"Warning: {summary.warning}."


def _compared(summary: Summary) -> str:
    sides = (summary.left, summary.right)
    rows: list[list[object]] = [
        ["adapter", *(side.name for side in sides)],
        ["rank", *(side.rank for side in sides)],
        ["step", *("not known" if side.step is None else side.step for side in sides)],
        ["learning rate", *("not known" if side.lr is None else f"{side.lr:g}" for side in sides)],
        ["base", *(side.base or "not known" for side in sides)],
    ]
    basis = f"Basis {summary.basis}: the right-singular vectors of A, by falling singular value, as in the paper."
    return _table(["", "left", "right"], rows) + f"\n\n{basis}"


def _figure(summary: Summary) -> str:
    i, j = summary.left.rank, summary.right.rank
    layers = ", ".join(map(str, summary.layers))
    return (
        f"`fig6` has a row for each of the layers {layers} (counted from 1) and four columns: ΔW_q and ΔW_v "
        f"with j from 1 to {j}, then the same with j from 1 to {summary.zoom}. i runs downward from 1 to {i}, "
        "j to the right, and one colour scale from 0 to 1 serves all panels. The first two columns leave "
        "out the cells with j < i, the last two those with j > i (grey-blue). That only halves the view: a cell "
        "left out of one panel of a site is in its other one, and those with i = j are in both."
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


def _losses(losses: list[Losses]) -> str:
    rows = [
        [
            arm.arm,
            arm.control or "",
            f"{arm.start:.4f}",
            f"{arm.end:.4f}",
            "" if arm.share is None else f"{arm.share:.0%}",
        ]
        for arm in losses
    ]
    table = _table(["arm", "control", "start", "end", "share of the task's gain"], rows)
    return (
        "Nats a token, before the first step and at the last validation up to the step compared. The share is that "
        "of a control's gain in the gain of the arm that learned the task at the same rank, seed and learning rate."
        f"\n\n{table}"
    )


def _table(names: list[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
