"""What the processes took, as figures that compare the sides, and as the README's table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t
from whole_run import GIB

from training_parts.sides import BEST, DEFAULTS, OURS, TITLES, Trained
from training_parts.workloads import RANKS

WITHIN = 0.02  # nats a token: a loss is reached when the upper limit of the paired difference is at most this


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
    """Means over the seeds of every side, our times as a share of the others', and the losses beside ours.

    Args:
        results: `figures`, each with its `side` and `seed`.
        steps: of each arm; the losses of that step are compared.
    """
    sides = {side: _of(results, side) for side in TITLES if _of(results, side)}
    means = {
        side: {
            name: mean(row[name] for row in rows.values())
            for name in ("wall_s", "start_up_s", "step_s", "tokens_per_s", "mfu", "peak_gib")
        }
        | {"seeds": len(rows), "losses": {f"r{k}": mean(_loss(row, k, steps) for row in rows.values()) for k in RANKS}}
        for side, rows in sides.items()
    }
    shares = {
        side: {name: _share(sides, side, name) for name in ("wall_s", "step_s")} for side in sides if side != OURS
    }
    agreement = {side: _beside(sides[OURS], rows, steps, steps) for side, rows in sides.items() if side != OURS}
    found: dict[str, Any] = {"means": means, "ours_as_a_share": shares, "our_loss_minus_theirs": agreement}
    return found | {"reached": {side: _reached(sides, side, steps) for side in sides if side != OURS}}


def _of(results: Sequence[Mapping[str, Any]], side: str) -> dict[int, Mapping[str, Any]]:
    """The figures of a side, by seed."""
    return {row["seed"]: row for row in results if row["side"] == side}


def _loss(row: Mapping[str, Any], rank: int, step: int) -> float:
    loss: float = row["losses"][f"r{rank}"][str(step)]
    return loss


def _share(sides: Mapping[str, Mapping[int, Mapping[str, Any]]], side: str, name: str) -> float:
    """Our mean as a share of theirs, over the seeds that both have."""
    seeds = sides[OURS].keys() & sides[side].keys()
    return mean(sides[OURS][seed][name] for seed in seeds) / mean(sides[side][seed][name] for seed in seeds)


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
            seconds = mean(ours[seed]["reached_s"][str(step)] for seed in seeds)
            shares = {
                side: seconds / mean(rows[seed]["wall_s"] for seed in rows.keys() & seeds)
                for side, rows in sides.items()
                if side != OURS
            }
            return {"step": step, "seconds": seconds, "share_of_whole_job": shares, "difference": beside}
    return None


def table(files: Sequence[Path]) -> str:
    """The README's table of all results there are, in Markdown."""
    return "\n\n".join(_table(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def _table(found: Mapping[str, Any]) -> str:
    machine, about, means = found["machine"], found["workload"], found["summary"]["means"]
    seeds = means[OURS]["seeds"]
    head = (
        f"{about['title']}, r=8 and r=64, {about['steps']} steps of {about['batch']} examples, {about['dtype']}, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}; {machine['processor']}, {machine['cores']} cores:"
    )
    columns = ["", "both arms, s", "ours / theirs", "start-up, s", "step of both, s", "ours / theirs", "tokens/s"]
    columns += ["MFU", "GiB", "loss"]
    shares = found["summary"]["ours_as_a_share"]
    rows = [_cells(side, row, shares.get(side)) for side, row in means.items()]
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---", *["---:"] * (len(columns) - 1)], *rows)]
    return "\n".join([head, "", *lines, *_times_to_losses(found["summary"], about["steps"])])


def _cells(side: str, row: Mapping[str, Any], shares: Mapping[str, float] | None) -> list[str]:
    job, step = (f"{shares[name]:.2f}" if shares else "" for name in ("wall_s", "step_s"))
    seconds = [f"{row['wall_s']:.1f}", job, f"{row['start_up_s']:.1f}", f"{row['step_s']:.3f}", step]
    rest = [f"{row['tokens_per_s']:,.0f}", f"{row['mfu']:.0%}", f"{row['peak_gib']:.2f}"]
    return [TITLES[side], *seconds, *rest, " / ".join(f"{loss:.3f}" for loss in row["losses"].values())]


def _times_to_losses(found: Mapping[str, Any], steps: int) -> list[str]:
    """A sentence for each side, on when its losses were reached; none for a single seed, which cannot tell."""
    lines = []
    for side, reached in found["reached"].items():
        beside = found["our_loss_minus_theirs"][side]
        if reached:
            shares = reached["share_of_whole_job"]
            at_best = (
                f", and {shares[BEST]:.2f} of what it takes at its best" if side == DEFAULTS and BEST in shares else ""
            )
            lines.append(
                f"- as good as {TITLES[side]}, after step {reached['step']}: {reached['seconds']:.1f} s, "
                f"{shares[side]:.2f} of its whole job{at_best}"
            )
        elif all(arm["upper"] is not None for arm in beside.values()):
            limits = (
                f"{_signed(arm['mean'])} at r={name[1:]} (upper limit {_signed(arm['upper'])})"
                for name, arm in beside.items()
            )
            lines.append(
                f"- not shown to be as good as {TITLES[side]}, by step {steps}: "
                f"its loss minus theirs is {' and '.join(limits)}"
            )
    if not lines:
        return []
    head = f"`deltaw train` is (upper 95 % limit of the paired difference of validation losses at most {WITHIN} nats)"
    return ["", head, "", *lines]


def _signed(loss: float) -> str:
    return f"{loss:+.3f}".replace("-", "−")
