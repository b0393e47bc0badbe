"""What the processes took, as figures that compare the sides, and as the README's tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import t
from whole_run import GIB

from training_parts.sides import BEST, DEFAULTS, OURS, PAIRED, TITLES, Trained
from training_parts.workloads import RANKS

WITHIN = 0.02  # nats a token: a loss is reached when the upper limit of the paired difference is at most this
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
        "reached": {side: _reached(sides, side, steps) for side in others},
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
    """For each arm, our loss at `step` minus their `last`, paired by seed: mean and upper limit, in nats a token."""
    found: dict[str, dict[str, float | None]] = {}
    for rank in RANKS:
        pairs = sorted(ours.keys() & theirs.keys())
        differences = [_loss(ours[seed], rank, step) - _loss(theirs[seed], rank, last) for seed in pairs]
        found[f"r{rank}"] = {"mean": mean(differences), "upper": upper_limit(differences)}
    return found


def _reached(sides: Mapping[str, Mapping[int, Mapping[str, Any]]], of: str, last: int) -> dict[str, Any] | None:
    """The first step at which both our arms are as good as another side's, and our time until then.

    As good is an upper limit of at most `WITHIN`. None if that was not reached, or if one seed cannot tell.

    Args:
        sides: the figures of each side, by seed.
        of: the side whose losses are to be reached.
        last: its last step.
    """
    ours, seeds = sides[OURS], sides[OURS].keys() & sides[of].keys()
    steps = sorted(map(int, next(iter(ours.values()))["losses"][f"r{RANKS[0]}"]))
    for step in steps:
        beside = _beside(ours, sides[of], step, last)
        if all(arm["upper"] is not None and arm["upper"] <= WITHIN for arm in beside.values()):
            seconds = {seed: ours[seed]["reached_s"][str(step)] for seed in seeds}
            shares = {
                side: spread(seconds[seed] / rows[seed]["wall_s"] for seed in rows.keys() & seeds)
                for side, rows in sides.items()
                if side != OURS
            }
            return {"step": step, "seconds": spread(seconds.values()), "share_of_whole_job": shares}
    return None


def table(files: Sequence[Path]) -> str:
    """The README's tables of all results there are, in Markdown, and what their figures mean."""
    return "\n\n".join([*(_table(json.loads(file.read_text(encoding="utf-8"))) for file in files), LEGEND])


def _table(found: Mapping[str, Any]) -> str:
    machine, about = found["machine"], found["workload"]
    of_all = summary(found["results"], about["steps"])
    seeds = of_all["figures"][OURS]["seeds"]
    head = (
        f"{about['title']}, r=8 and r=64, {about['steps']} steps of {about['batch']} examples, {about['dtype']}, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}; {machine['processor']}, {machine['cores']} cores:"
    )
    columns = ["", "both arms, s", "ours / theirs", "start-up, s", "step of both, s", "ours / theirs", "tokens/s"]
    columns += ["MFU", "GiB", "loss"]
    shares = of_all["ours_as_a_share"]
    rows = [_cells(side, row, shares.get(side)) for side, row in of_all["figures"].items()]
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---", *["---:"] * (len(columns) - 1)], *rows)]
    return "\n".join([head, "", *lines, *_times_to_losses(of_all, about["steps"])])


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
            sentences.append(f"as good as {TITLES[side]} {_when(side, reached)}")
        elif all(arm["upper"] is not None for arm in beside.values()):
            limits = (
                f"{_signed(arm['mean'])} at r={name[1:]} (upper limit {_signed(arm['upper'])})"
                for name, arm in beside.items()
            )
            sentences.append(
                f"not shown to be as good as {TITLES[side]} by step {steps}: its loss minus theirs is "
                f"{' and '.join(limits)}"
            )
    subjects = ["`deltaw train`", *["It"] * len(sentences)]
    paragraph = " ".join(f"{subject} is {sentence}." for subject, sentence in zip(subjects, sentences, strict=False))
    return ["", paragraph] if sentences else []


def _when(side: str, reached: Mapping[str, Any]) -> str:
    """The step and the time at which a side's losses were reached, beside the time of its whole job."""
    shares = reached["share_of_whole_job"]
    job = f"{shares[side].words(2)} of its whole job"
    with_best = side in (DEFAULTS, PAIRED) and BEST in shares
    at_best = f", and {shares[BEST].words(2)} of what it takes at its best" if with_best else ""
    return f"after step {reached['step']}: {reached['seconds'].words(1)} s, {job}{at_best}"


def _signed(loss: float) -> str:
    return f"{round(loss, 3) + 0.0:+.3f}".replace("-", "−")  # no −0.000
