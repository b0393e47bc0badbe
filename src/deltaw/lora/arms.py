"""The arms of a run, from what is asked for: each by itself, or every rank × seed × learning rate × control."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from deltaw.config.schema import NAME
from deltaw.errors import UserError
from deltaw.lora.arm import CONTROLS, SCALINGS, Arm


def arms_from(
    ranks: Iterable[int] | None,
    seeds: Iterable[int] | None,
    lrs: Iterable[float] | None,
    controls: Iterable[str],
    alpha: float,
    scaling: str,
    default_lr: float,
    dropout: float = 0.0,
    listed: Any = None,
) -> list[Arm]:
    """The arms that are listed; without a list every combination, as the task's own arm and as each control.

    Args:
        ranks: None means 8 and 64.
        seeds: None means 0.
        lrs: None means `default_lr`.
        controls: besides the task's own arms.
        alpha: of every arm that is not listed with another; the same goes for `scaling` and `default_lr`.
        scaling: how the scale follows from alpha and rank.
        default_lr: peak learning rate.
        dropout: of all arms.
        listed: None, or a list of mappings: `rank` and any other of `_RULES`, None for what is left out.

    Raises:
        UserError: a value is out of its range or of another type, an entry of the list has an unknown key or no rank,
            there are none or two equal arms, or a list and besides it what it replaces.
    """
    run = {"seed": 0, "lr": default_lr, "alpha": alpha, "scaling": scaling}
    for key in ("alpha", "scaling"):
        _check(f"arms.{key}=", key, run[key])
    _check("optim.lr=", "lr", default_lr)
    shorthand = {"ranks": ranks, "seeds": seeds, "lrs": lrs, "controls": controls}
    entries = _every_combination(shorthand) if listed is None else _read(listed, shorthand)
    arms = [_arm(entry, run, dropout) for entry in entries]
    names = [arm.name for arm in arms]
    if listed is None and (not arms or len(set(names)) < len(names)):
        raise UserError(
            f"the arms {names} are none or not all different: give arms.ranks, arms.seeds and arms.lrs at least "
            "one value each, every value once"
        )
    for n, name in enumerate(names):
        if (first := names.index(name)) < n:
            raise UserError(f"arms.list[{first}] and arms.list[{n}] are both {name}: give one of them another name")
    return arms


def _every_combination(shorthand: Mapping[str, Any]) -> list[dict[str, Any]]:
    for key, values in shorthand.items():
        for value in values or []:
            _check(f"arms.{key} has ", key.removesuffix("s"), value)
    ranks, seeds, lrs, controls = shorthand.values()
    ranks, seeds = [8, 64] if ranks is None else ranks, [0] if seeds is None else seeds
    combinations = product([None, *controls], seeds, ranks, lrs or [None])
    entries = [{"control": control, "seed": seed, "rank": rank, "lr": lr} for control, seed, rank, lr in combinations]
    return [_given(entry) for entry in entries]


def _read(listed: Any, shorthand: Mapping[str, Any]) -> list[dict[str, Any]]:
    if besides := [f"arms.{key}" for key, values in shorthand.items() if values]:
        raise UserError(
            f"arms.list names every arm, and {', '.join(besides)} would be more of them: leave one of the two out, "
            f"as by {besides[0]}={'[]' if besides[0] == 'arms.controls' else 'null'}"
        )
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise UserError(f"arms.list={listed} is no list of arms: give at least one, as [{{rank: 8}}]")
    for n, entry in enumerate(listed):
        if not isinstance(entry, Mapping) or "rank" not in _given(entry):
            raise UserError(f"arms.list[{n}]={entry} has no rank: give it one, as {{rank: 8}}")
        for key, value in _given(entry).items():
            if key not in _RULES:
                raise UserError(f"arms.list[{n}] has the key {key!r}: choose from {', '.join(_RULES)}")
            _check(f"arms.list[{n}].{key}=", key, value)
    return [_given(entry) for entry in listed]


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _arm(entry: Mapping[str, Any], run: Mapping[str, Any], dropout: float) -> Arm:
    own = {**run, "control": None, "rank_pattern": {}, "alpha_pattern": {}, **entry}
    own |= {key: float(own[key]) for key in ("lr", "alpha")}
    own["alpha_pattern"] = {module: float(alpha) for module, alpha in own["alpha_pattern"].items()}
    lr = f"lr{own['lr']:g}" if own["lr"] != run["lr"] else ""
    variant = _variant(own, run)
    parts = [f"r{own['rank']}", f"s{own['seed']}", lr, variant, own["control"] or ""]
    return Arm(**{"name": _joined(parts), **own}, dropout=dropout, variant=variant)


def _variant(own: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    patterns = own["rank_pattern"], own["alpha_pattern"]
    return _joined(
        [
            f"a{own['alpha']:g}" if own["alpha"] != run["alpha"] else "",
            own["scaling"].replace("/", "-") if own["scaling"] != run["scaling"] else "",
            f"p{hashlib.sha256(json.dumps(patterns).encode()).hexdigest()[:5]}" if any(patterns) else "",
        ]
    )


def _joined(parts: Iterable[str]) -> str:
    return "-".join(filter(None, parts))


def _check(where: str, key: str, value: Any) -> None:
    holds, rule = _RULES[key]
    if not holds(value):
        raise UserError(f"{where}{value!r}: {rule}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_pattern(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(_is_regex(key) and holds(own) for key, own in value.items())


def _is_regex(key: Any) -> bool:
    try:
        return isinstance(key, str) and bool(re.compile(key).pattern)
    except re.error:
        return False


_PATTERN = "names of modules, or regular expressions that they end with, as PEFT matches them"

# What may be said of an arm: what holds of it, and how that is put.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rank": (_is_rank, "a rank is a whole number of at least 1"),
    "seed": (_is_whole, "a seed is a whole number"),
    "lr": (_is_positive, "a learning rate is a finite number above 0"),
    "alpha": (_is_positive, "alpha is a finite number above 0, without which every ΔW is 0 or infinite"),
    "scaling": (SCALINGS.__contains__, f"choose from {', '.join(SCALINGS)}"),
    "control": (CONTROLS.__contains__, f"choose from {', '.join(CONTROLS)}"),
    "rank_pattern": (lambda given: _is_pattern(given, _is_rank), f"give ranks by {_PATTERN}: {{q_proj: 4}}"),
    "alpha_pattern": (lambda given: _is_pattern(given, _is_positive), f"give alphas by {_PATTERN}: {{q_proj: 4}}"),
    "name": (
        lambda given: isinstance(given, str) and re.fullmatch(NAME, given) is not None and given[0] != ".",
        "a name is a directory's: letters, digits, '.', '_' and '-' alone, and no '.' first",
    ),
}
