"""The answer to "which rank do I need?", as `advice.json` holds it.

Losses are in nats per token, or per row of a classification. Sentences begin with a capital and end with a full stop.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evidence:
    """What the answer rests on.

    Attributes:
        runs: their directories' names.
        step: optimiser steps that the judged arms have taken.
        judged: number of judged examples.
        clusters: number of independent groups of them; `judged` where each example stands for itself.
        labels: of all judged examples.
        validation: number of examples that the learning rate and the best arm were chosen by.
        unit: what the losses are a mean over, token or row.
        margin: the share of the gain that may be given up.
    """

    runs: list[str]
    step: int
    judged: int
    clusters: int
    labels: int
    validation: int
    unit: str
    margin: float


@dataclass(frozen=True)
class Learned:
    """One arm's gain on the judged examples.

    Attributes:
        gain: loss of the base minus the arm's; None where a loss is not finite.
        se: its standard error over the judged examples; None where it is not known.
        doubt: why the arm cannot be said to have learned, as the end of a sentence about it; None where it has.
    """

    arm: str
    control: str | None
    rank: int
    seed: int
    lr: float
    gain: float | None
    se: float | None
    doubt: str | None


@dataclass(frozen=True)
class Cut:
    """An arm, or the arms of all seeds, cut to rank `cut` at every site.

    Attributes:
        parameters: share of the uncut arm's parameters, in (0, 1].
        cost: loss of the cut minus loss of the uncut arm.
        se: its standard error.
        kept: share of the gain that is kept; above 1 where the cut is better.
        kept_at_least: its lower one-sided 95 % limit.
        kept_at_most: its upper one; below 1 − margin, the cut is shown to be worse than the margin allows.
        passes: whether it is not worse than the uncut arm by more than the margin, with all larger cuts.
        needed: number of judged examples with which it would pass in 80 % of cases, if `kept` is right. Only for the
            first cut that fails, where `kept` is inside the margin, and where more examples alone can decide.
    """

    cut: int
    parameters: float
    cost: float
    se: float
    kept: float
    kept_at_least: float
    kept_at_most: float
    passes: bool
    needed: int | None


@dataclass(frozen=True)
class Ship:
    """Which cut of the largest rank to ship.

    Attributes:
        arm: the best arm of the largest rank, on validation; where `seeds` has several, the arm of the first seed.
        rank: of the uncut arm.
        seeds: one for a statement about this arm; at least three for one about its recipe (rank, learning rate, scale).
        cuts: from the largest to the smallest.
        ship: the smallest cut that passes; None if none does.
        better: the arm of a smaller rank that validates best, if the uncut arm is shown to be worse by more than the
            margin: no cut is advised then.
    """

    arm: str
    rank: int
    lr: float
    seeds: list[int]
    cuts: list[Cut]
    ship: Cut | None
    better: str | None = None


@dataclass(frozen=True)
class Rank:
    """A rank that arms were trained at, at its best learning rate on validation.

    Attributes:
        lrs: all learning rates tried at this rank.
        seeds: of the arms at `lr`.
        loss: mean over the seeds.
        cost: loss minus that of the reference rank, as a share of the reference's gain.
        cost_at_least: 95 % limit of `cost` that holds for all ranks at once, whichever is the reference; None for the
            reference, and where seeds are too few.
        cost_at_most: one-sided 95 % limit of `cost` by itself; None likewise.
        enough: whether it is shown to cost no more than the margin, with all larger ranks below the reference; true for
            the reference, false for the ranks above it.
    """

    rank: int
    lr: float
    lrs: list[float]
    seeds: list[int]
    loss: float
    cost: float
    cost_at_least: float | None
    cost_at_most: float | None
    enough: bool


@dataclass(frozen=True)
class Train:
    """Which rank to train next time.

    Attributes:
        reference: the rank with the lowest validation loss, at its best learning rate; None without a finite loss.
        rank: the smallest rank that is enough: the reference where the next smaller rank is shown to cost more than the
            margin, or where there is none; None if undecided.
        ranks: from the smallest to the largest; empty where the reference has no clear gain to share.
        scales: the scalings and alphas tried, as "alpha/r with alpha 16".
        seeds_needed: number of seeds of each rank that would probably decide; None where it is decided.
        judged_needed: number of judged examples, likewise.
        command: what would settle it, as a sweep with a run for each seed; None where it is decided, where the settings
            of the runs are not known, or where it takes too many seeds or more judged examples than the data can give.
        arms_of_a_seed: arms in each run of that sweep; None where it is decided or takes too many seeds or examples.
        times: how much longer than the runs so far that takes; None likewise.
        missing: why nothing is tested, as a sentence with the way on; None where it is, decided or not.
    """

    reference: int | None
    rank: int | None
    ranks: list[Rank]
    scales: list[str]
    seeds_needed: int | None
    judged_needed: int | None
    command: str | None
    arms_of_a_seed: int | None
    times: float | None
    missing: str | None


@dataclass(frozen=True)
class Dropped:
    """The best arm of the largest rank without ΔW at some sites.

    Attributes:
        what: the site, projection or layers, as "q of layer 3", "q", "layers 1 to 3".
        kind: "site", "projection" or "third".
        cost: loss that it adds, as a share of the gain.
        at_least, at_most: two-sided 95 % limits of `cost`, which hold for all of its kind at once.
        p: probability of such a cost if the true one is 0, one-sided; of sites corrected for all sites (Holm).
        sites: sum of the costs of its sites, each dropped alone, as a share of the gain; None for a site, and where its
            sites were not dropped alone.
        adds_up: false where `cost` is shown to differ from `sites`, at 5 % for all of its kind; None where `sites` is.
    """

    what: str
    kind: str
    cost: float
    at_least: float
    at_most: float
    p: float
    sites: float | None
    adds_up: bool | None


@dataclass(frozen=True)
class Advice:
    """The answer, with its evidence.

    Attributes:
        missing: why there is no answer at all, as a sentence with the way on; None if there is one.
        learned: a row for each judged arm, in the order of the config.
        ship: about the best arm of the largest rank; None without cuts.
        recipe: about the recipe of that arm; None with fewer than three seeds.
        where: empty without `truncate_sites`.
        remarks: sentences on what the evidence lacks, the gravest first.
    """

    missing: str | None
    evidence: Evidence | None = None
    learned: list[Learned] = field(default_factory=list)
    ship: Ship | None = None
    recipe: Ship | None = None
    train: Train | None = None
    where: list[Dropped] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
