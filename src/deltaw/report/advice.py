"""The advice in sentences: what to ship, what to train, and what each of these statements rests on.

A statement reaches as far as its evidence. One arm, cut: k directions of this arm carry its loss. Three seeds, cut: of
this recipe. Arms trained at k, three seeds of each rank: rank k suffices. φ and k_star do not say what rank is needed.
"""

from collections.abc import Iterator, Sequence

from deltaw.advice.answer import Advice, Cut, Dropped, Evidence, Learned, Rank, Ship, Train
from deltaw.advice.learned import LEVEL
from deltaw.report.findings import agreement
from deltaw.report.numbers import Summary
from deltaw.report.percent import about, at_least, at_most, kept, parameters, percent

MOST_NAMED = 3  # sites named in a sentence; the table has all
JOIN = "deltaw analyze run=runs/RUN,runs/RUN,…"
NOT_KNOWN = "No losses of these adapters are known, so no rank is advised."


def sentences(advice: Advice, summary: Summary) -> list[str]:
    """The advice in sentences. The first is the answer, or why there is none."""
    return [_ended(sentence) for sentence in _sentences(advice, summary)]


def _sentences(advice: Advice, summary: Summary) -> Iterator[str]:
    evidence = advice.evidence
    if advice.missing or evidence is None:
        yield advice.missing or NOT_KNOWN
        yield from advice.remarks
        return
    leading = 1 if _lacks_most(advice) else 0
    yield from _not_learned(advice.learned, evidence)
    yield from advice.remarks[:leading]
    if advice.ship:
        yield from _of_arm(advice.ship, evidence)
    if advice.recipe:
        yield from _of_recipe(advice.recipe, evidence)
    elif advice.ship:
        yield "A statement about the recipe takes three seeds; a statement about a rank takes arms trained at it"
    if advice.train:
        yield from _train(advice.train, evidence)
    if advice.where:
        yield from _where(advice.where, advice.ship, evidence)
    yield agreement(summary)
    yield from advice.remarks[leading:]


def _lacks_most(advice: Advice) -> bool:
    """Whether the gravest remark is the answer: no cut could be judged, or the judged examples are too few for one."""
    ship = advice.ship
    return ship is None or (ship.ship is None and not ship.better and ship.cuts[0].needed is not None)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _not_learned(learned: Sequence[Learned], evidence: Evidence) -> Iterator[str]:
    arms = [one for one in learned if one.control is None]
    doubtful = [one for one in arms if one.doubt]
    reasons = "; ".join(f"{one.arm} {one.doubt}" for one in doubtful)
    rests = f"({_seen(evidence)}, {_tested()})"
    if doubtful and len(doubtful) == len(arms):
        yield f"Nothing was learned, so no rank is advised: {reasons} {rests}"
    elif doubtful:
        yield f"Not every arm can be said to have learned: {reasons} {rests}"


def _of_arm(ship: Ship, evidence: Evidence) -> Iterator[str]:
    """Which cut of one arm to ship, what this rests on, and why no smaller one."""
    if ship.better:
        yield (
            f"Ship {ship.better} as it is: its rank is smaller, and {ship.arm} is shown to have a higher loss, by more "
            f"than {margin(evidence)} of the gain ({_seen(evidence)}, {_tested()})"
        )
        return
    if ship.ship is None:
        yield from _no_cut(ship, evidence)
        return
    estimate, limit = kept(ship.ship.kept, ship.ship.kept_at_least)
    yield (
        f"Ship {ship.arm} cut to {ship.ship.cut}: it keeps {estimate} of the gain (at least {limit}) in "
        f"{parameters(ship.ship.parameters)}"
    )
    yield (
        f"{_directions(ship.ship.cut, 'this arm')} its loss within the margin of {margin(evidence)} of "
        f"the gain over the base ({_seen(evidence, ship.seeds)}, {_tested()}, cuts from the largest down)"
    )
    yield from _first_failure(ship, evidence)


def _no_cut(ship: Ship, evidence: Evidence) -> Iterator[str]:
    yield (
        f"Ship {ship.arm} as it is: no cut is shown to stay within the margin of {margin(evidence)} of the gain "
        f"({_seen(evidence, ship.seeds)}, {_tested()})"
    )
    yield from _first_failure(ship, evidence)


def _of_recipe(recipe: Ship, evidence: Evidence) -> Iterator[str]:
    """What the seeds show together."""
    name = f"rank {recipe.rank} at learning rate {recipe.lr:g}"
    rests = f"({_seen(evidence, recipe.seeds)}, {_tested()} over seeds and examples)"
    if recipe.ship is None:
        failed = _failed(recipe)
        rest = f": cut to {failed.cut}, it keeps {_kept(failed)} of the gain" if failed else ""
        yield f"Of this recipe, {name}, no cut is shown to stay within the margin{rest} {rests}"
        return
    yield (
        f"{_directions(recipe.ship.cut, f'this recipe, {name},')} its loss within the margin: cut to "
        f"{recipe.ship.cut}, it keeps {_kept(recipe.ship)} of the gain {rests}"
    )


def _failed(ship: Ship) -> Cut | None:
    """The first cut, from the largest down, that does not pass."""
    return next((cut for cut in ship.cuts if not cut.passes), None)


def _first_failure(ship: Ship, evidence: Evidence) -> Iterator[str]:
    """Why no smaller cut: it is worse, or this is not decided."""
    if not (failed := _failed(ship)):
        if ship.cuts[-1].cut > 1:
            yield "No smaller cut was judged: start the same deltaw train again with smaller numbers in truncate"
        return
    keeps = f"it keeps {_kept(failed)}"
    if failed.kept_at_most < 1 - evidence.margin:
        yield f"By the same evidence, a cut to {failed.cut} is shown to lose more than the margin: {keeps}"
    else:
        way = f", and about {about(failed.needed)} judged examples would probably decide" if failed.needed else ""
        yield f"By the same evidence, whether a cut to {failed.cut} stays within the margin is open: {keeps}{way}"


def _kept(cut: Cut) -> str:
    return "{} (at least {})".format(*kept(cut.kept, cut.kept_at_least))


def _directions(cut: int, of: str) -> str:
    return f"1 direction per site of {of} carries" if cut == 1 else f"{cut} directions per site of {of} carry"


def _train(train: Train, evidence: Evidence) -> Iterator[str]:
    """Which rank to train next time, what each rank may cost, and what would settle it."""
    ranks = {one.rank: one for one in train.ranks}
    if train.missing or train.reference is None:
        yield train.missing or "Which rank to train next time is not known"
        return
    seeds = f"{_seeds(ranks[train.reference].seeds)} of rank {train.reference}"
    rests = f"({_seen(evidence)}, {seeds}, {_tested()} over seeds and examples)"
    if train.rank is None:
        yield f"Undecided at {margin(evidence)}: which rank to train next time {rests}"
    elif train.rank == train.reference:
        yield f"Train rank {train.rank} next time: {_smaller(train)} {rests}"
    else:
        yield f"Train rank {train.rank} next time: {_suffices(ranks[train.rank], train.reference)} {rests}"
    yield from _costs(train, evidence)
    yield from _settle(train, evidence)


def _suffices(rank: Rank, reference: int) -> str:
    """What is shown of a rank that arms were trained at."""
    tried = "the only one tried" if len(rank.lrs) == 1 else f"the best of {len(rank.lrs)}"
    cost = "" if rank.cost_at_most is None else f", and costs at most {at_most(rank.cost_at_most)} of the gain"
    return f"rank {rank.rank} suffices at learning rate {rank.lr:g}, {tried}{cost} against rank {reference}"


def _smaller(train: Train) -> str:
    """Why the reference, and no smaller rank."""
    below = [one for one in train.ranks if one.rank < (train.reference or 0)]
    if not below:
        return "it validates best, which is a choice and no test, and no smaller one was trained"
    lowest = below[-1].cost_at_least
    return f"rank {below[-1].rank} costs " + ("more" if lowest is None else f"at least {at_least(lowest)} of the gain")


def _costs(train: Train, evidence: Evidence) -> Iterator[str]:
    most = [(one.rank, at_most(one.cost_at_most)) for one in train.ranks if one.cost_at_most is not None]
    if most:
        (rank, cost), *others = most
        yield (
            f"By the same evidence, against rank {train.reference} and as a share of the gain, at 95 %, rank {rank} "
            + ", ".join([f"costs at most {cost}", *(f"rank {rank} at most {cost}" for rank, cost in others)])
        )
    worse = [
        f"rank {one.rank} (at least {at_least(one.cost_at_least)})"
        for one in train.ranks
        if one.cost_at_least is not None and one.cost_at_least > evidence.margin
    ]
    if worse:
        yield f"By the same evidence, shown to cost more than {margin(evidence)} of the gain: {', '.join(worse)}"


def _settle(train: Train, evidence: Evidence) -> Iterator[str]:
    """What would probably decide, and the commands for it where there are any."""
    takes = [f"{about(train.seeds_needed)} seeds of each rank"] if train.seeds_needed else []
    if train.judged_needed and train.judged_needed > evidence.judged:
        number = f"{train.judged_needed:,}" if train.command else about(train.judged_needed)  # as in the command
        takes.append(f"{number} judged examples")
    if takes:
        below = [one.rank for one in train.ranks if one.rank < (train.reference or 0)]
        condition = f", if rank {below[-1]} costs no more than rank {train.reference}" if below else ""
        yield f"About {' and '.join(takes)} would probably decide{condition}"
    if train.command:
        cost = "" if train.times is None else f", in about {_times(train.times)} the time of the runs so far"
        yield (
            f"This sweep, with {train.arms_of_a_seed} arms side by side in a run for each seed, would probably settle "
            f"it{cost}: `{train.command}`"
        )
        yield f"Then `{JOIN}`, with all runs of the sweep, answers from all seeds together"


def _times(times: float) -> str:
    return f"{times:.1f} times" if times < 10 else f"{times:,.0f} times"


def _where(where: Sequence[Dropped], ship: Ship | None, evidence: Evidence) -> Iterator[str]:
    """What dropping ΔW costs by place, whether these costs add up, and what does not follow from them."""
    arm = ship.arm if ship else "the best arm of the largest rank"
    rests = f"({_seen(evidence, ship.seeds if ship else ())}; the limits hold for all of a kind at once, at 95 %)"
    sites = sorted((one for one in where if one.kind == "site"), key=lambda one: -one.cost)
    if sites:
        shown = sum(one.p < LEVEL for one in sites)
        yield (
            f"Of the sites, {arm} loses most of its gain without ΔW at {_named(sites[:MOST_NAMED])}; {shown} of "
            f"{len(sites)} are shown to carry anything {rests}"
        )
    groups = [one for one in where if one.kind != "site"]
    if groups:
        yield f"Of its gain, {arm} loses without ΔW at all sites of one kind: {_named(groups)} {rests}"
        yield from _additivity(groups)
    yield (
        "What a site carries does not say that it takes more rank: whether a rank for each site beats one rank for all "
        "was not tried here. On the bundled base, none of four such patterns was shown to be better"
    )


def _named(dropped: Sequence[Dropped]) -> str:
    return ", ".join(
        f"{one.what} ({percent(one.cost)}; {at_least(one.at_least)} to {at_most(one.at_most)})" for one in dropped
    )


def _additivity(groups: Sequence[Dropped]) -> Iterator[str]:
    known = [one for one in groups if one.sites is not None]
    apart = [one for one in known if not one.adds_up]
    if apart:
        each = ", ".join(f"{one.what} {percent(one.cost)} against {percent(one.sites or 0.0)}" for one in apart)
        yield f"The costs do not add up: dropped together against the sum of the sites one by one, {each}"
    elif known:
        yield "Sites dropped together are not shown to cost more or less than the sum of what they cost one by one"


def _seen(evidence: Evidence, seeds: Sequence[int] = ()) -> str:
    """What a statement rests on, as "step 150, seed 0, 512 judged examples"."""
    groups = f" in {evidence.clusters:,} groups" if evidence.clusters != evidence.judged else ""
    examples = f"{evidence.judged:,} judged example{'' if evidence.judged == 1 else 's'}{groups}"
    return ", ".join([f"step {evidence.step}", *([_seeds(seeds)] if seeds else []), examples])


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"


def margin(evidence: Evidence) -> str:
    """The margin in percent."""
    return f"{100 * evidence.margin:g} %"


def _tested() -> str:
    return f"one-sided at {LEVEL:.0%}".replace("%", " %")
