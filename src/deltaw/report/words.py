"""The summary as Markdown: the advice, the findings, their caveats, and the numbers in tables."""

from collections.abc import Sequence
from math import isnan
from typing import Any

from deltaw.advice.answer import Advice
from deltaw.analysis.bases import MEANINGS
from deltaw.analysis.compare import RARE
from deltaw.report import merging
from deltaw.report.advice import NOT_KNOWN, sentences
from deltaw.report.advice_tables import section
from deltaw.report.caveats import caveats
from deltaw.report.findings import contrast, course, decimals_of, depth, findings
from deltaw.report.levels import Level, Levels, Spectra
from deltaw.report.numbers import Side, Spread, Summary
from deltaw.report.plain import in_markdown
from deltaw.report.sharing import ENOUGH
from deltaw.report.table import table
from deltaw.run.metrics import MEASURED


def markdown(summary: Summary, advice: Advice | None = None) -> str:
    """The summary as Markdown; adapters outside of a run have no losses, and so no advice."""
    summary, advice = in_markdown(summary), in_markdown(advice)
    left, right = summary.left, summary.right
    numbered = (f"{number}. {sentence}" for number, sentence in enumerate(findings(summary), start=1))
    remarks = "\n".join(f"- {remark}." for remark in summary.remarks)
    sections = [
        f"# φ(A_{{r={_ranks(left)}}}, A_{{r={_ranks(right)}}}, i, j): {left.name} against {right.name}",
        *(["## Which rank", section(advice, sentences(advice, summary))] if advice else [NOT_KNOWN]),
        *(["## Before the findings", remarks] if remarks else []),
        "## Findings",
        "\n".join(numbered),
        "\n".join(f"- {caveat}" for caveat in caveats(summary)),
        *(["## Merging", merging.section(summary.merge)] if summary.merge else []),
        "## What is compared",
        _compared(summary),
        *(["## Beside the control pair", _excess(summary)] if _has_floor_or_ceiling(summary) else []),
        "## Every basis beside chance, averaged over the sites",
        _bases(summary),
        *(["## Controls", _controls(summary)] if summary.controls else []),
        "## Spectra, averaged over the sites",
        _spectra(summary),
        *(["## Figure 6", _figure(summary)] if "fig6" in summary.exhibits else []),
        "## φ by layer and matrix, over all i",
        _levels(summary),
        "## φ by depth, and one matrix against the other",
        f"In the basis {summary.basis}: {depth(summary.depth)} {contrast(summary.contrast)}".rstrip(),
        "## Structure in i and j, averaged over the sites",
        _structure(summary),
        *(
            ["## Against W: Table 7 of the paper", _amplification(summary.amplification)]
            if summary.amplification
            else []
        ),
        *(["## Validation", _losses(summary.losses)] if summary.losses else []),
    ]
    return "\n\n".join(sections) + "\n"


def _ranks(found: Side | Spectra) -> str:
    """The rank, or the smallest and the largest one where a pattern sets ranks."""
    return " to ".join(map(str, dict.fromkeys([found.smallest_rank, found.rank])))


def _compared(summary: Summary) -> str:
    sides = (summary.left, summary.right)
    rows: list[list[object]] = [
        ["adapter", *(side.name for side in sides)],
        ["folder", *(side.folder for side in sides)],
        ["rank", *(_ranks(side) for side in sides)],
        ["step", *("not known" if side.step is None else side.step for side in sides)],
        ["learning rate", *("not known" if side.lr is None else f"{side.lr:g}" for side in sides)],
        ["base", *(side.base or "not known" for side in sides)],
    ]
    bases = "; ".join(
        f"{basis}: {MEANINGS[basis]}" for basis in dict.fromkeys(["A", *(one.basis for one in summary.levels)])
    )
    meaning = f"Bases: {bases}. Figures, cells and the findings about them use the basis {summary.basis}."
    return table(["", "left", "right"], rows) + f"\n\n{meaning}"


MEASURES = {"first": "φ(1, 1)", "row": "φ(1, r)", "corner": "φ(r, r′)", "k_star": "k_star"}


def _has_floor_or_ceiling(summary: Summary) -> bool:
    return any(one.control is not None or one.other_seed is not None for one in summary.excess)


# By whether left and right of each pair took their examples in the same order.
ORDER = {
    True: "Both arms took their examples in the same order, and share more for that; their shadows do not show it.",
    False: "Each left arm is compared with right arms of other seeds, since arms of one seed take their examples in "
    "the same order and share more for that.",
}


def _excess(summary: Summary) -> str:
    seeds = max(one.seeds for one in summary.excess)
    head = ["basis", "measure", "arms", "control pair", "shadow and arm", "arm and shadow", "two seeds of a rank"]
    rows = [
        [
            one.basis,
            MEASURES[one.measure],
            *(_signed(value) for value in (one.pair, one.control, one.left_shadow, one.right_shadow, one.other_seed)),
            _signed(one.excess) + ("" if one.se is None else f" ± {one.se:.3f}"),
            "" if one.p is None else f"{one.p:.2g}",
        ]
        for one in summary.excess
    ]
    return (
        f"Means over the sites and over {'one seed' if seeds == 1 else f'{seeds} seeds'}, each minus what random "
        f"subspaces give. {ORDER[summary.one_order]} A shadow learns from its arm's inputs and back-propagated errors, "
        "each example's under a random sign. The control pair is two shadows: left and right would share as much with "
        "nothing to learn. Two seeds of a rank differ only in start and order: what they share is the ceiling. The "
        "excess is arms minus control pair, ± its standard error, which leaves out one seed at a time. p is one-sided, "
        "by Student's t with the seed as its unit, and corrected for all tests in the table (Holm). There is no test "
        f"with fewer than {ENOUGH} seeds, of single sites, of φ(1, r) and of k_star.\n\n"
        f"{table([*head, 'excess', 'p'], rows)}"
    )


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".replace("-", "−")


def _bases(summary: Summary) -> str:
    r_left, r_right = (
        str(side.rank) if side.rank == side.smallest_rank else name
        for side, name in ((summary.left, "r"), (summary.right, "r′"))
    )
    names = [f"φ({cell})" for cell in ("1, 1", f"1, {r_right}", f"{r_left}, {r_right}")]
    head = ["basis", *(name for cell in names for name in (cell, "random")), "k_star", "mean cos²"]
    rows = [[levels.basis, *_measures(levels)] for levels in summary.levels]
    meaning = (
        "k_star is the number of directions shared beyond random subspaces, with the number of sites that share at "
        "least one in brackets, and then the mean cos² of what it counts: in a wide layer a direction counts although "
        "the two subspaces are far from parallel. If all subspaces were random, k_star would be above 0 at any site of "
        f"a basis in at most {RARE:.0%} of cases."
    )
    reasons = sorted({f"- {one.basis}: {one.reason}" for one in summary.levels if one.reason})
    return "\n\n".join([meaning, table(head, rows), *(["\n".join(reasons)] if reasons else [])])


def _controls(summary: Summary) -> str:
    names = ("φ(1, 1)", "φ(1, r)", "φ(r, r′)")
    cells = (name for cell in names for name in (cell, "random"))
    head = ["right", "share of the gain", "basis", *cells, "k_star", "mean cos²"]
    rows = [[summary.right.name, "", levels.basis, *_measures(levels)] for levels in summary.levels]
    for control in summary.controls:
        share = _percent(control.share)
        rows += [[control.name, share, levels.basis, *_measures(levels)] for levels in control.levels]
    return (
        f"{summary.left.name} against {summary.right.name}, and against its controls: arms of the same rank, seed and "
        "learning rate that learn something else (shuffled: completions of other prompts; random: random tokens or "
        "labels) or with less freedom (frozen_a: B alone). They answer other questions than the control pair: an arm "
        "of the task with a control shares less than two controls may share, so a difference between these rows does "
        f"not measure the task.\n\n{table(head, rows)}"
    )


def _measures(levels: Levels) -> list[str]:
    k_star = "" if levels.k_star is None else f"{levels.k_star:.1f} ({levels.sharing})"
    cos2 = "" if levels.cos2 is None else f"{levels.cos2:.2f}"
    return [*_beside(levels.first), *_beside(levels.row), *_beside(levels.corner), k_star, cos2]


def _beside(level: Level) -> list[str]:
    return [f"{level.phi:.3f}", f"{level.random:.3f}"]


def _spectra(summary: Summary) -> str:
    rows = [
        [one.arm, one.basis, _ranks(one), f"{one.stable_rank:.1f}", f"{one.entropy_rank:.1f}", f"{one.energy_rank:.1f}"]
        for one in summary.spectra
        if one.basis != "output"
    ]
    meaning = (
        "The stable rank is ‖·‖²_F / σ₁². The entropy rank is exp H(σ² / Σσ²). The energy rank is the smallest number "
        "of directions with 90 % of ‖·‖²_F. The ranks of ΔW stand in the rows of the basis input."
    )
    return f"{meaning}\n\n{table(['arm', 'basis', 'rank', 'stable', 'entropy', 'energy'], rows)}"


def _figure(summary: Summary) -> str:
    i, j = summary.left.rank, summary.right.rank
    layers = ", ".join(map(str, summary.layers))
    return (
        f"`fig6` has a row for each of the layers {layers} (counted from 1). A row has a wide panel of each matrix, "
        f"with j from 1 to {j}, then a zoomed panel of each, with j from 1 to {summary.zoom}. i runs downward, from 1 "
        f"to {i}, and j to the right. All panels share one colour scale from 0 to 1. The wide panels leave out cells "
        "with j < i, the zoomed panels cells with j > i (grey-blue). Every cell is in one of the two panels of its "
        "site, and the cells with i = j are in both. `fig6-times-chance` shows φ divided by chance, max(i, j)/d; "
        "`fig6-minus-control`, where both arms have shadows, shows φ minus φ of the control pair."
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
    return table(["layer", "matrix", *names], rows)


def _numbers(phi: Spread) -> list[str]:
    return ["" if isnan(number) else f"{number:.3f}" for number in (phi.lowest, phi.mean, phi.highest, phi.chance)]


def _structure(summary: Summary) -> str:
    j = summary.right.rank
    meaning = (
        f"φ(1, k) is the share of the first direction of {summary.left.name} that lies in the first k directions of "
        f"{summary.right.name}"
    )
    sizes = sorted({cell.i for cell in summary.cells} | {cell.j for cell in summary.cells})
    rows = [
        [k, *_beside_chance(summary, k, k), *_beside_chance(summary, 1, k), *_beside_chance(summary, k, j)]
        for k in sizes
    ]
    levels = table(["k", "φ(k, k)", "random", "φ(1, k)", "random", f"φ(k, {j})", "random"], rows)
    return ". ".join([meaning, *course(summary)]) + f".\n\n{levels}"


def _beside_chance(summary: Summary, i: int, j: int) -> list[str]:
    cell = summary.cell(i, j)
    return [f"{cell.phi.mean:.3f}", f"{cell.phi.chance:.3f}"] if cell else ["", ""]


def _losses(losses: Sequence[dict[str, Any]]) -> str:
    metrics = {name: words for name, words in MEASURED.items() if name in losses[0]}
    rows = [
        [
            arm["arm"],
            arm["control"] or "",
            "diverged" if arm["start"] is None else _measured(arm["start"]),
            "diverged" if arm["end"] is None else _measured(arm["end"], arm["end_se"]),
            *("" if arm[name] is None else _measured(arm[name]) for name in metrics),
            _percent(arm["share"]),
        ]
        for arm in losses
    ]
    head = ["arm", "control", "loss at start", "loss", *metrics.values(), "share of the task's gain"]
    unit = " or ".join(dict.fromkeys(arm["unit"] for arm in losses))
    error = (
        "How much they vary with the choice of validation examples is not recorded, so small differences may be chance."
        if all(arm["end_se"] is None for arm in losses)
        else "± is the standard error over the choice of validation examples. Two arms are measured on the same "
        "examples, so their difference may vary less than either loss."
    )
    return (
        f"Loss, in nats, and accuracy are per {unit}. The loss at start is measured before the first step, all else at "
        f"the last validation up to the compared step. {error} The share divides the gain of a control by the gain of "
        f"the arm that learned the task with the same settings.\n\n{table(head, rows)}"
    )


def _measured(value: float, error: float | None = None) -> str:
    """With an error, as many decimals as its first digit has, and two at least.

    Else two decimals, since the validation examples do not determine a third; two digits where the number is small.
    """
    if error:
        decimals = decimals_of(error)
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _percent(share: float | None) -> str:
    """A share of a gain: "" where it is not known, "none" where nothing is gained."""
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
        "‖UᵀWVᵀ‖, U and V of ΔW",
        "of W",
        "random",
        "random, expected: k‖W‖/√(d_out d_in)",
        "amplification",
        "amplification of random directions",
    ]
    lines = [
        [
            row["layer"],
            f"ΔW_{row['projection']}",
            row["arm"],
            *("" if row[name] is None else f"{row[name]:.3f}" for name in names),
            f"{row['norm_update'] / row['by_random_closed']:.3f}" if row["by_random_closed"] else "",
        ]
        for row in rows
    ]
    meaning = (
        "All norms are Frobenius norms. U and V are the first k left- and right-singular vectors of ΔW, of W, or of a "
        "random matrix; k is the numerical rank of ΔW. Amplification is ‖ΔW‖ / ‖UᵀWVᵀ‖ with U and V of ΔW. It has a "
        "meaning only beside the last column, the same ratio for k random directions."
    )
    return f"{meaning}\n\n{table(head, lines)}"
