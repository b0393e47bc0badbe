"""Which settings tell two runs apart."""

from collections.abc import Collection
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deltaw.config.keys import keys_of
from deltaw.config.schema import TrainConfig

# A run stays the same run on other devices, with other micro-batches, another cache and other distances of snapshots.
FREE_TO_CHANGE = tuple(name for name, key in keys_of(TrainConfig) if not key.identity)


def differences(
    one: DictConfig, other: DictConfig, free: Collection[str] = FREE_TO_CHANGE
) -> dict[str, tuple[object, object]]:
    """The settings in which two configs differ, by key in alphabetical order, with the value of each config.

    Args:
        one, other: configs of `deltaw train`.
        free: keys, and sections, in which they may differ.
    """
    settings = [_flat(OmegaConf.to_container(config, resolve=True)) for config in (one, other)]
    prefixes = tuple(f"{key}." for key in free)
    # A key that a file lacks is one of another version of deltaw, and null is what most such keys are by default.
    values = {
        key: (settings[0].get(key), settings[1].get(key)) for key in sorted(settings[0].keys() | settings[1].keys())
    }
    return {key: (a, b) for key, (a, b) in values.items() if a != b and not f"{key}.".startswith(prefixes)}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}
