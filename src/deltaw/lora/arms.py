"""The arms of a run, from its config: a list of them, or every rank × seed × learning rate × control."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

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
    """The arms in a list; without a list, every combination of the other settings.

    Args:
        ranks: None means 8 and 64.
        seeds: None means 0.
        lrs: None means `default_lr`.
        controls: kinds of controls to train besides the arms of the task.
        alpha: of every arm whose entry in the list has none; the same holds for `scaling` and `default_lr`.
        scaling: how the scale follows from alpha and rank.
        default_lr: peak learning rate.
        dropout: of all arms.
        listed: None, or a list of mappings with `rank` and any other key of `_RULES`; None stands for a missing key.

    Raises:
        UserError: a value has a wrong type or range; an entry of the list has an unknown key or no rank; there are no
            arms, or two equal ones; or the list comes together with the settings that it replaces.
    """
    for where, key, value in (("arms.", "alpha", alpha), ("arms.", "scaling", scaling), ("optim.", "lr", default_lr)):
        _check(f"{where}{key}=", key, value)
    settings = {"ranks": ranks, "seeds": seeds, "lrs": lrs, "controls": controls}
    entries = _combinations(settings) if listed is None else _entries(listed, settings)
    defaults = Arm("", 0, seed=0, alpha=float(alpha), scaling=scaling, lr=float(default_lr), dropout=dropout)
    arms = [_arm(entry, defaults) for entry in entries]
    _check_names([arm.name for arm in arms], listed is not None)
    return arms


def _combinations(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    for key, values in settings.items():
        for value in values or []:
            _check(f"arms.{key} has ", key.removesuffix("s"), value)
    ranks, seeds, lrs, controls = settings.values()
    ranks, seeds = [8, 64] if ranks is None else ranks, [0] if seeds is None else seeds
    combinations = product([None, *controls], seeds, ranks, lrs or [None])
    return [
        _without_none({"control": control, "seed": seed, "rank": rank, "lr": lr})
        for control, seed, rank, lr in combinations
    ]


def _entries(listed: Any, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a list of arms, checked."""
    if also_given := [f"arms.{key}" for key, values in settings.items() if values]:
        raise UserError(
            f"arms.list names every arm, and {', '.join(also_given)} would add more: leave one of the two out, "
            f"as by {also_given[0]}={'[]' if also_given[0] == 'arms.controls' else 'null'}"
        )
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise UserError(f"arms.list={listed} is no list of arms: give at least one, as [{{rank: 8}}]")
    for n, entry in enumerate(listed):
        if not isinstance(entry, Mapping) or "rank" not in _without_none(entry):
            raise UserError(f"arms.list[{n}]={entry} has no rank: give it one, as {{rank: 8}}")
        for key, value in _without_none(entry).items():
            if key not in _RULES:
                raise UserError(f"arms.list[{n}] has the key {key!r}: choose from {', '.join(_RULES)}")
            _check(f"arms.list[{n}].{key}=", key, value)
    return [_without_none(entry) for entry in listed]


def _without_none(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _arm(entry: Mapping[str, Any], defaults: Arm) -> Arm:
    arm = replace(defaults, **_with_floats(entry))
    arm = replace(arm, variant=_variant(arm, defaults))
    return replace(arm, name=arm.name or _name(arm, defaults))


def _with_floats(entry: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {key: float(entry[key]) for key in ("lr", "alpha") if key in entry}
    alphas = {module: float(alpha) for module, alpha in entry.get("alpha_pattern", {}).items()}
    return {**entry, **numbers, "alpha_pattern": alphas}


def _name(arm: Arm, defaults: Arm) -> str:
    lr = f"lr{arm.lr:g}" if arm.lr != defaults.lr else ""
    return _join(f"r{arm.rank}", f"s{arm.seed}", lr, arm.variant, arm.control or "")


def _variant(arm: Arm, defaults: Arm) -> str:
    patterns = arm.rank_pattern, arm.alpha_pattern
    return _join(
        f"a{arm.alpha:g}" if arm.alpha != defaults.alpha else "",
        arm.scaling.replace("/", "-") if arm.scaling != defaults.scaling else "",
        f"p{hashlib.sha256(json.dumps(patterns).encode()).hexdigest()[:5]}" if any(patterns) else "",
    )


def _join(*parts: str) -> str:
    return "-".join(filter(None, parts))


def _check_names(names: list[str], from_list: bool) -> None:
    if not from_list and (not names or len(set(names)) < len(names)):
        raise UserError(
            f"the arms {names} are none or not all different: give arms.ranks, arms.seeds and arms.lrs at least "
            "one value each, every value once"
        )
    for n, name in enumerate(names):
        if (first := names.index(name)) < n:
            raise UserError(f"arms.list[{first}] and arms.list[{n}] are both {name}: give one of them another name")


def _check(where: str, key: str, value: Any) -> None:
    if not _RULES[key].holds(value):
        raise UserError(f"{where}{value!r}: {_RULES[key].text}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return _is_integer(value) and value >= 1


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_pattern(pattern: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(pattern, Mapping) and all(_is_regex(key) and holds(value) for key, value in pattern.items())


def _is_regex(key: Any) -> bool:
    try:
        return isinstance(key, str) and bool(re.compile(key).pattern)
    except re.error:
        return False


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(NAME, value)) and not re.search(r"-shadow\d+$", value)


class _Rule(NamedTuple):
    """What a value of an arm's setting must be, as a test and in words."""

    holds: Callable[[Any], bool]
    text: str


_MODULES = "names of modules, or regular expressions that they end with, as PEFT matches them"

_RULES = {
    "rank": _Rule(_is_rank, "a rank is a whole number of at least 1"),
    "seed": _Rule(_is_integer, "a seed is a whole number"),
    "lr": _Rule(_is_positive, "a learning rate is a finite number above 0"),
    "alpha": _Rule(_is_positive, "alpha is a finite number above 0; any other makes every ΔW 0 or infinite"),
    "scaling": _Rule(SCALINGS.__contains__, f"choose from {', '.join(SCALINGS)}"),
    "control": _Rule(CONTROLS.__contains__, f"choose from {', '.join(CONTROLS)}"),
    "rank_pattern": _Rule(lambda pattern: _is_pattern(pattern, _is_rank), f"give ranks by {_MODULES}: {{q_proj: 4}}"),
    "alpha_pattern": _Rule(
        lambda pattern: _is_pattern(pattern, _is_positive), f"give alphas by {_MODULES}: {{q_proj: 4}}"
    ),
    "name": _Rule(
        _is_name,
        "a name is a directory's: 1 to 200 letters, digits, '.', '_' and '-', no '.' first; an end as -shadow1 is a "
        "shadow's",
    ),
}
