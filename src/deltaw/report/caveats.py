"""What the reader has to bear in mind with the findings, a sentence or two each."""

from collections.abc import Iterator

from deltaw.analysis.compare import RARE
from deltaw.report.numbers import Summary


def caveats(summary: Summary) -> Iterator[str]:
    """The caveats that apply to these adapters, and the basis that their files do not allow."""
    d = ", ".join(map(str, summary.widths))
    yield (
        f"Random is the level of random subspaces of ℝ^d, max(i, j)/d on average, with d = {d} in the basis "
        f"{summary.basis}. A site is beyond random subspaces where these reach its φ with a probability below "
        f"{RARE:.0%} divided by the number of sites."
    )
    yield (
        "Random subspaces are the weakest level: arms that read the same inputs share directions for this reason "
        "alone, whatever they learned. A claim about what they learned needs the control pair and three seeds."
    )
    yield (
        "Where B has full rank, φ of the whole spans is the same in the bases A and input by algebra: these are not "
        "two findings."
    )
    if any(levels.k_star is not None for levels in summary.levels):
        yield (
            "k_star counts directions that random subspaces would hardly share, at one step and in one basis. It does "
            "not say how closely they are shared: the mean cos² of these directions does."
        )
    close = [
        f"{one.arm} in the basis {one.basis} at {one.arbitrary} of {one.sites} sites"
        for one in summary.spectra
        if one.arbitrary
    ]
    if close:
        yield (
            f"The first two singular values lie within 5 % of each other for {', '.join(close)}: there the first "
            "direction and φ(1, 1) are arbitrary, while the span is not."
        )
    if summary.left.lr_tuned is None or summary.right.lr_tuned is None:
        yield "It is not known how an adapter outside of a run was trained."
    if summary.left.lr_tuned is False or summary.right.lr_tuned is False:
        yield "The learning rate is not tuned per rank."
    if summary.undefined:
        yield f"{summary.undefined} cells are beyond the numerical rank of an adapter: they have no φ and do not count."
    yield from (f"{sentence}." for sentence in summary.missing)
