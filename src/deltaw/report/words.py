"""The summary as Markdown: the findings, what is to be said against them, and the numbers in tables."""

from collections.abc import Iterator, Sequence
from typing import Any

from deltaw.analysis.compare import RARE
from deltaw.report.findings import contrast, depth, fall, findings
from deltaw.report.levels import Level, Levels
from deltaw.report.numbers import Spread, Summary
from deltaw.run.metrics import MEASURED

MEANINGS = {
    "A": "the right-singular vectors of A, by falling singular value, as in the paper",
    "update": "those of A − A₀, what training added to A",
    "input": "the right-singular vectors of ΔW",
    "output": "the left-singular vectors of ΔW",
}


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
        f"{depth(summary)} {contrast(summary.contrast)}".rstrip(),
        "## Structure in i and j, on average over the sites",
        _structure(summary),
        *(
            ["## Against W: Table 7 of the paper", _amplification(summary.amplification)]
            if summary.amplification
            else []
        ),
        *(["## Validation", _losses(summary.losses)] if summary.losses else []),
    ]
    return "\n\n".join(sections) + "\n"


def _reservations(summary: Summary) -> Iterator[str]:
    d = ", ".join(map(str, summary.widths))
    yield (
        f"Random: what random subspaces of ℝ^d give, d = {d} on the basis {summary.basis}: max(i, j)/d on average. A "
        f"site is beyond it where they are as similar in fewer than {RARE:.0%} of cases divided by the number of sites."
    )
    yield "Arms that read the same inputs share directions for that alone, whatever they learned."
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
    head = ["basis", *(name for cell in names for name in (cell, "random")), "k_star"]
    rows = [[levels.basis, *_measures(levels)] for levels in summary.levels]
    meaning = (
        "k_star is the number of directions shared beyond random subspaces; in brackets the number of sites that have "
        f"one. Random subspaces would have one at any site of a basis in fewer than {RARE:.0%} of cases."
    )
    reasons = sorted({f"- {one.basis}: {one.reason}" for one in summary.levels if one.reason})
    return "\n\n".join([meaning, _table(head, rows), *(["\n".join(reasons)] if reasons else [])])


def _controls(summary: Summary) -> str:
    names = ("φ(1, 1)", "φ(1, r)", "φ(r, r′)")
    head = ["right", "share of the gain", "basis", *(name for cell in names for name in (cell, "random")), "k_star"]
    rows = [[summary.right.name, "", levels.basis, *_measures(levels)] for levels in summary.levels]
    for control in summary.controls:
        share = _percent(control.share)
        rows += [[control.name, share, levels.basis, *_measures(levels)] for levels in control.levels]
    return (
        f"{summary.left.name} against the same rank, seed and learning rate without the task. Two arms without the "
        "task share directions as well, and this table has no such pair: the distance between its rows does not "
        f"measure the task.\n\n{_table(head, rows)}"
    )


def _measures(levels: Levels) -> list[str]:
    k_star = "" if levels.k_star is None else f"{levels.k_star:.1f} ({levels.sharing})"
    return [*_beside(levels.first), *_beside(levels.row), *_beside(levels.corner), k_star]


def _beside(level: Level) -> list[str]:
    return [f"{level.phi:.3f}", f"{level.random:.3f}"]


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
    return "; ".join([meaning, *fall(summary)]) + f".\n\n{table}"


def _beside_chance(summary: Summary, i: int, j: int) -> list[str]:
    cell = summary.cell(i, j)
    return [f"{cell.phi.mean:.3f}", f"{cell.phi.chance:.3f}"] if cell else ["", ""]


def _losses(losses: Sequence[dict[str, Any]]) -> str:
    metrics = {name: words for name, words in MEASURED.items() if name in losses[0]}
    rows = [
        [
            arm["arm"],
            arm["control"] or "",
            *("diverged" if arm[end] is None else _measured(arm[end]) for end in ("start", "end")),
            *("" if arm[name] is None else _measured(arm[name]) for name in metrics),
            _percent(arm["share"]),
        ]
        for arm in losses
    ]
    head = ["arm", "control", "loss at start", "loss", *metrics.values(), "share of the task's gain"]
    unit = " or ".join(dict.fromkeys(arm["unit"] for arm in losses))
    return (
        f"Loss, in nats, and accuracy are per {unit}; at start is before the first step, the others at the last "
        "validation up to the step compared. How far another draw of validation examples would move them is not "
        "recorded, so small differences may be chance. The share divides a control's gain by the gain of the arm that "
        f"learned the task and is the same in all else.\n\n{_table(head, rows)}"
    )


def _measured(value: float) -> str:
    """Two decimals: validation examples do not settle a third. Two digits where the number is small."""
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


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
        "amplification",
        "of random directions",
    ]
    lines = [
        [
            row["layer"],
            f"ΔW_{row['projection']}",
            row["arm"],
            *(f"{row[name]:.3f}" for name in names),
            f"{row['norm_update'] / row['by_random_closed']:.3f}",
        ]
        for row in rows
    ]
    meaning = (
        "Frobenius norms; the three columns from the sixth on are ‖UᵀWVᵀ‖. Amplification is ‖ΔW‖/‖UᵀWVᵀ‖ with U, V of "
        "ΔW. It means something only beside the last column, the same ratio for r random directions."
    )
    return f"{meaning}\n\n{_table(head, lines)}"


def _table(names: list[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
