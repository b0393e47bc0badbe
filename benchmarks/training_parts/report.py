"""What the processes took, as figures that compare the sides, and as the README's tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

from markdown_table import in_markdown, in_words
from results_file import machine_of
from scipy.stats import t
from whole_run import GIB

from training_parts.sides import BEST, DEFAULTS, EAGER, OURS, PAIRED, TITLES, Trained
from training_parts.workloads import RANKS

WITHIN = 0.02  # nats a token: a loss is reached when the upper limit of the paired difference is at most this
ARMS, BOTH = tuple(f"r{rank}" for rank in RANKS), "both"
MEASURES = ("wall_s", "start_up_s", "step_s", "tokens_per_s", "mfu", "peak_gib")
LEGEND = (
    "Of several seeds, times, rates and memory are medians, with the lowest and the highest in brackets; ours / theirs "
    "is taken seed by seed; losses are means. As good as another side means that the loss of `deltaw train` at that "
    "step minus theirs at the end, paired by seed, has an upper 95 % limit of at most "
    f"{WITHIN} nats a token at both ranks."
)


@dataclass(frozen=True)
class Spread:
    """Median of the values of all seeds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    def words(self, decimals: int) -> str:
        """As 83.5 (73.2–87.7); the range is left out where it is a single value."""
        middle, low, high = (f"{value:.{decimals}f}" for value in (self.median, self.lowest, self.highest))
        return f"{middle} ({low}–{high})" if self.lowest < self.highest else middle


def spread(values: Iterable[float]) -> Spread:
    found = list(values)
    return Spread(median(found), min(found), max(found))


def figures(
    processes: Sequence[Trained],
    steps: int,
    train: Mapping[str, Any],
    rate: float,
    losses: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """One side, one seed.

    Args:
        processes: of the side, one after another; each with the arms that its folders name.
        steps: of each arm.
        train: what each arm learns: `tokens`, and the `flops` of each rank, forward and backward.
        rate: FLOPs a second of a matrix product.
        losses: of each arm by step, in nats a token.

    Returns:
        Seconds are sums over the processes; `step_s` is a step of both arms. `tokens_per_s` counts no padding, and like
        `mfu` it is of the training alone, without start-up.
    """
    training = sum(process.training_s for process in processes)
    return {
        "wall_s": sum(process.wall_s for process in processes),
        "start_up_s": sum(process.start_up_s for process in processes),
        "training_s": training,
        "step_s": training / steps,
        "tokens_per_s": len(RANKS) * train["tokens"] / training,
        "mfu": sum(train["flops"].values()) / training / rate,
        "peak_gib": max(process.peak_bytes for process in processes) / GIB,
        "losses": losses,
        "reached_s": processes[0].reached_s,
    }


def upper_limit(differences: Sequence[float]) -> float | None:
    """One-sided 95 % limit of a mean over seeds, by Student's t; None for a single seed."""
    count = len(differences)
    if count < 2:
        return None
    return mean(differences) + float(t.ppf(0.95, count - 1)) * stdev(differences) / count**0.5


def summary(results: Sequence[Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """The seeds of every side together, our times as a share of the others', and the losses beside ours.

    Args:
        results: `figures`, each with its `side` and `seed`.
        steps: of each arm; the losses of that step are compared.

    Returns:
        `figures` (of each measure a `Spread`; mean losses; the number of seeds) by side, and by other side
        `ours_as_a_share`, `our_loss_minus_theirs` and `reached`.
    """
    sides = {side: _of(results, side) for side in TITLES if _of(results, side)}
    found = {
        side: {name: spread(row[name] for row in rows.values()) for name in MEASURES}
        | {"seeds": len(rows), "losses": {f"r{k}": mean(_loss(row, k, steps) for row in rows.values()) for k in RANKS}}
        for side, rows in sides.items()
    }
    others = [side for side in sides if side != OURS]
    return {
        "figures": found,
        "ours_as_a_share": {
            side: {name: _share(sides, side, name) for name in ("wall_s", "step_s")} for side in others
        },
        "our_loss_minus_theirs": {side: _beside(sides[OURS], sides[side], steps, steps) for side in others},
        "reached": {side: _reached(sides, _as_good(sides[OURS], sides[side], steps)) for side in others},
    }


def _of(results: Sequence[Mapping[str, Any]], side: str) -> dict[int, Mapping[str, Any]]:
    """The figures of a side, by seed."""
    return {row["seed"]: row for row in results if row["side"] == side}


def _loss(row: Mapping[str, Any], rank: int, step: int) -> float:
    loss: float = row["losses"][f"r{rank}"][str(step)]
    return loss


def _share(sides: Mapping[str, Mapping[int, Mapping[str, Any]]], side: str, name: str) -> Spread:
    """Our time as a share of theirs, seed by seed."""
    ours, theirs = sides[OURS], sides[side]
    return spread(ours[seed][name] / theirs[seed][name] for seed in ours.keys() & theirs.keys())


def _beside(
    ours: Mapping[int, Mapping[str, Any]], theirs: Mapping[int, Mapping[str, Any]], step: int, last: int
) -> dict[str, dict[str, float | None]]:
    """Our loss at `step` minus their `last`, paired by seed: mean, spread and upper limit, in nats a token.

    Of each arm, and of both: the mean over the arms of a seed.
    """
    pairs = sorted(ours.keys() & theirs.keys())
    of_arms = {
        f"r{rank}": [_loss(ours[seed], rank, step) - _loss(theirs[seed], rank, last) for seed in pairs]
        for rank in RANKS
    }
    both = [mean(of_seed) for of_seed in zip(*of_arms.values(), strict=True)]
    return {
        name: {
            "mean": mean(differences),
            "sd": stdev(differences) if len(pairs) > 1 else None,
            "upper": upper_limit(differences),
        }
        for name, differences in (of_arms | {BOTH: both}).items()
    }


def _as_good(
    ours: Mapping[int, Mapping[str, Any]], theirs: Mapping[int, Mapping[str, Any]], last: int, of: Sequence[str] = ARMS
) -> int | None:
    """The first step from which on our arms, or their mean, are as good as another side's at its `last` one.

    As good is an upper limit of at most `WITHIN`. None if the end is not, or if one seed cannot tell.
    """
    found = None
    for step in sorted(map(int, next(iter(ours.values()))["losses"][ARMS[0]]), reverse=True):
        beside = _beside(ours, theirs, step, last)
        uppers = [beside[name]["upper"] for name in of]
        if any(upper is None or upper > WITHIN for upper in uppers):
            break
        found = step
    return found


def _reached(sides: Mapping[str, Mapping[int, Mapping[str, Any]]], step: int | None) -> dict[str, Any] | None:
    """Our time until a step, and as a share of each other side's whole job; None without a step."""
    if step is None:
        return None
    ours, others = sides[OURS], [side for side in sides if side != OURS]
    seconds = {seed: row["reached_s"][str(step)] for seed, row in ours.items()}
    shares = {
        side: spread(seconds[seed] / sides[side][seed]["wall_s"] for seed in seconds.keys() & sides[side].keys())
        for side in others
    }
    return {"step": step, "seconds": spread(seconds.values()), "share_of_whole_job": shares}


def table(all_found: Iterable[Mapping[str, Any]]) -> str:
    """What was found for each workload, in Markdown, and what the figures mean."""
    return "\n\n".join([*map(_table, all_found), LEGEND])


def table_in_short(all_found: Iterable[Mapping[str, Any]]) -> str:
    """Our seconds as a share of the Trainer's, for each workload and machine: at its defaults, and at its best.

    Of several ways to its best, the one that takes the least counts.
    """
    rows = []
    for found in all_found:
        of_all, about = summary(found["results"], found["workload"]["steps"]), found["workload"]
        shares, taken = of_all["ours_as_a_share"], of_all["figures"]
        seeds = taken[OURS]["seeds"]
        what = (
            f"{about['title']}, {about['dtype']}, {about['steps']} steps, {seeds} {'seed' if seeds == 1 else 'seeds'}"
        )
        cells = []
        for measure in ("wall_s", "step_s"):
            best = min((side for side in (BEST, EAGER) if side in taken), key=lambda side: taken[side][measure].median)
            cells += [shares[side][measure].words(2) for side in (DEFAULTS, best)]
        rows.append([what, machine_of(found), *cells])
    head = ["seconds, ours / theirs", "on", "whole job, defaults", "at its best", "step, defaults", "at its best"]
    return in_markdown(head, rows, words=2)


def table_of_pairs(found: Mapping[str, Any]) -> str:
    """Our losses beside those of the paired peer."""
    steps, sides = found["workload"]["steps"], {side: _of(found["results"], side) for side in (OURS, PAIRED)}
    beside = _beside(sides[OURS], sides[PAIRED], steps, steps).values()
    rows = []
    for side, of_seeds in sides.items():
        losses = [mean(_loss(row, rank, steps) for row in of_seeds.values()) for rank in RANKS]
        rows.append([TITLES[side], *(f"{loss:.3f}" for loss in (*losses, mean(losses)))])
    rows += [
        ["difference", *(in_words(arm["mean"], "+.3f") for arm in beside)],
        ["its upper 95 % limit", *(in_words(arm["upper"], "+.3f") for arm in beside)],
        ["its standard deviation over the seeds", *(in_words(arm["sd"], ".3f") for arm in beside)],
    ]
    head = [f"loss after {steps} steps, {len(sides[OURS])} seeds", *(f"r={rank}" for rank in RANKS), "mean of both"]
    return in_markdown(head, rows)


def sentences_of_pairs(found: Mapping[str, Any], timed: Iterable[Mapping[str, Any]]) -> str:
    """Whether and when our arms, as a mean, are as good as those of the paired peer.

    Args:
        found: with our side and the paired one.
        timed: measurements of the same workload whose times count.
    """
    steps, sides = found["workload"]["steps"], {side: _of(found["results"], side) for side in (OURS, PAIRED)}
    both = _beside(sides[OURS], sides[PAIRED], steps, steps)[BOTH]
    step = _as_good(sides[OURS], sides[PAIRED], steps, of=[BOTH])
    what = (
        "From the same start and with the same examples at every step, the loss of `deltaw train` minus that of "
        f"Hugging Face's Trainer at its defaults is {in_words(both['mean'], '+.3f')} nats a token after {steps} steps "
        f"(mean of both arms, {len(sides[OURS])} seeds; upper limit {in_words(both['upper'], '+.3f')})"
    )
    if step is None:
        return f"{what}: not shown to be within {WITHIN}."
    times = [
        f"On {machine_of(one)} that takes {_when(DEFAULTS, reached)}."
        for one in timed
        if (reached := _reached({side: _of(one["results"], side) for side in (OURS, DEFAULTS, BEST)}, step))
    ]
    return " ".join([f"{what}: within {WITHIN} from step {step} on.", *times])


def _table(found: Mapping[str, Any]) -> str:
    about = found["workload"]
    of_all = summary(found["results"], about["steps"])
    seeds = of_all["figures"][OURS]["seeds"]
    head = (
        f"{about['title']}, r=8 and r=64, {about['steps']} steps of {about['batch']} examples, {about['dtype']}, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}; {machine_of(found)}:"
    )
    columns = ["", "both arms, s", "ours / theirs", "start-up, s", "step of both, s", "ours / theirs", "tokens/s"]
    columns += ["MFU", "GiB", "loss"]
    shares = of_all["ours_as_a_share"]
    rows = [_cells(side, row, shares.get(side)) for side, row in of_all["figures"].items()]
    return "\n".join([head, "", in_markdown(columns, rows), *_times_to_losses(of_all, about["steps"])])


def _cells(side: str, row: Mapping[str, Any], shares: Mapping[str, Spread] | None) -> list[str]:
    job, step = (shares[name].words(2) if shares else "" for name in ("wall_s", "step_s"))
    start_up, step_s, tokens, mfu, memory = (row[name].median for name in MEASURES[1:])
    seconds = [row["wall_s"].words(1), job, f"{start_up:.1f}", f"{step_s:.3f}", step]
    rest = [f"{tokens:,.0f}", f"{mfu:.0%}", f"{memory:.2f}"]
    return [TITLES[side], *seconds, *rest, " / ".join(f"{loss:.3f}" for loss in row["losses"].values())]


def _times_to_losses(found: Mapping[str, Any], steps: int) -> list[str]:
    """Sentences on when each side's losses were reached; none for a single seed, which cannot tell."""
    sentences = []
    for side, reached in found["reached"].items():
        beside = found["our_loss_minus_theirs"][side]
        if reached:
            sentences.append(f"as good as {TITLES[side]} after step {reached['step']}: {_when(side, reached)}")
        elif all(arm["upper"] is not None for arm in beside.values()):
            sentences.append(
                f"not shown to be as good as {TITLES[side]} by step {steps}: its loss minus theirs is {_limits(beside)}"
            )
    subjects = ["`deltaw train`", *["It"] * len(sentences)]
    paragraph = " ".join(f"{subject} is {sentence}." for subject, sentence in zip(subjects, sentences, strict=False))
    return ["", paragraph] if sentences else []


def _limits(beside: Mapping[str, Mapping[str, float | None]]) -> str:
    """The mean and the upper limit of each rank's differences."""
    return " and ".join(
        f"{in_words(arm['mean'], '+.3f')} at r={name[1:]} (upper limit {in_words(arm['upper'], '+.3f')})"
        for name, arm in beside.items()
        if name in ARMS
    )


def _when(side: str, reached: Mapping[str, Any]) -> str:
    """The time at which a side's losses were reached, beside the time of its whole job."""
    shares = reached["share_of_whole_job"]
    job = f"{shares[side].words(2)} of its whole job"
    with_best = side == DEFAULTS and BEST in shares
    at_best = f", and {shares[BEST].words(2)} of what it takes at its best" if with_best else ""
    return f"{reached['seconds'].words(1)} s, {job}{at_best}"
