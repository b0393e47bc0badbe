"""What the schema says about a key: its meaning, unit and limit, and its part in the identity and the name of a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from math import isfinite
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class Limit:
    """The values that a key may have; of a list, each element.

    Attributes:
        words: the values, in words that complete "give …".
        holds: whether a value is one of them.
    """

    words: str
    holds: Callable[[Any], bool]


ZERO_OR_MORE = Limit("0 or more", lambda value: value >= 0)
ONE_OR_MORE = Limit("1 or more", lambda value: value >= 1)
TWO_OR_MORE = Limit("2 or more", lambda value: value >= 2)
POSITIVE = Limit("a number above 0", lambda value: value > 0)
POSITIVE_AND_FINITE = Limit("a finite number above 0", lambda value: value > 0 and isfinite(value))
SHARE = Limit("a share, from 0 to 1", lambda value: 0 <= value <= 1)
SHARE_BETWEEN = Limit("a share, above 0 and below 1", lambda value: 0 < value < 1)
SHARE_BELOW_ONE = Limit("a share, from 0 to less than 1", lambda value: 0 <= value < 1)


def one_of(*names: str) -> Limit:
    """These names and no others."""
    return Limit(f"one of {', '.join(names)}", names.__contains__)


@dataclass(frozen=True)
class Key:
    """What the schema says about one key, or about a section of keys.

    Attributes:
        meaning: one line.
        unit: of the value; "" for a name, a switch or a number without a unit.
        limit: the values that every run may have; None where the type alone decides, or another module.
        identity: whether a directory of a run with another value holds another run.
        in_name: whether the default name of a run tells the value, so that a sweep over the key adds no suffix.
    """

    meaning: str
    unit: str = ""
    limit: Limit | None = None
    identity: bool = True
    in_name: bool = False

    @property
    def text(self) -> str:
        """The meaning with its unit; the comment of the key in the YAML begins with this text."""
        return f"{self.meaning}, in {self.unit}" if self.unit else self.meaning


def keys_of(config: type) -> Iterator[tuple[str, Key]]:
    """Every key of a config by its full name, as `optim.lr`; each section comes before its keys."""
    yield from ((name, key) for name, _, key in fields_of(config))


def fields_of(config: type, prefix: str = "") -> Iterator[tuple[str, Any, Key]]:
    """Full name, type and key of everything that `keys_of` gives."""
    for part, hint in get_type_hints(config, include_extras=True).items():
        kind, key = get_args(hint)
        yield f"{prefix}{part}", kind, key
        for section in filter(is_dataclass, (kind, *get_args(kind))):
            yield from fields_of(section, f"{prefix}{part}.")  # type: ignore[arg-type]
