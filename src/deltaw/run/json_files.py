"""JSON that others wrote: read within bounds, and checked once against the types that the code relies on."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST_FILE = 16 << 20  # bytes; the record of a run with ten thousand modules has less
LARGEST_NUMBER = 3.4e38  # of float32: squares and products of such numbers stay finite in float64
LARGEST_INT = 2**63 - 1  # tables hold 64 bits

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    NoneType: "null",
    list: "a list",
    dict: "an object",
}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, no JSON, or nested too deep.
    """
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"it has {size} bytes, and at most {LARGEST_FILE} are read")
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """The content of JSON in text, or in UTF-8 or UTF-16 with or without a byte order mark.

    Raises:
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def misfit(value: object, kind: Any, name: str = "") -> str | None:
    """Where JSON is not what the code relies on, as "r is 'x', not a whole number"; None if it is of the type `kind`.

    Keys that a TypedDict or a dataclass does not have are ignored. Numbers are finite, and whole numbers have at most
    64 bits.

    Args:
        value: what `read_json` returned, or a part of it.
        kind: bool, int, float, str, None, Any, list[…], tuple[…] (a list in JSON), dict[str, …], a TypedDict, a
            dataclass, or a union of these.
        name: of the value; "" for the content of a file.
    """
    if kind is Any:
        return None
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    fitting = next((one for one in kinds if _is_of(value, _plain(one))), None)
    if fitting is None:
        return f"{name or 'it'} is {_shown(value)}, not {' or '.join(_WORDS[_plain(one)] for one in kinds)}"
    if lacking := _required(fitting) - set(value if isinstance(value, dict) else ()):
        return f"{name or 'the file'} lacks {', '.join(sorted(lacking))}"
    if _plain(fitting) is list and (length := _length(fitting)) not in (None, len(value)):  # type: ignore[arg-type]
        return f"{name} is {_shown(value)}, not a list of {length}"
    return next(filter(None, (misfit(*item) for item in _items(value, fitting, name))), None)


def _plain(kind: Any) -> type:
    """The type of JSON that holds a `kind`."""
    if is_typeddict(kind) or is_dataclass(kind):
        return dict
    origin: type | None = get_origin(kind) or kind
    return NoneType if origin is None else list if origin is tuple else origin


def _is_of(value: object, plain: type) -> bool:
    if isinstance(value, bool):
        return plain is bool
    if plain is float:
        return isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER
    if plain is int:
        return isinstance(value, int) and abs(value) <= LARGEST_INT
    return isinstance(value, plain) and (plain is not str or _is_unicode(str(value)))


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: JSON has escapes for halves of characters, which no file and no terminal takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _required(kind: Any) -> frozenset[str]:
    if is_typeddict(kind):
        return frozenset(kind.__required_keys__)
    if is_dataclass(kind):
        return frozenset(one.name for one in fields(kind) if one.default is one.default_factory is MISSING)
    return frozenset()


def _length(kind: Any) -> int | None:
    """The length of a tuple; None for a list and a tuple of any length."""
    parts = get_args(kind)
    return len(parts) if get_origin(kind) is tuple and Ellipsis not in parts else None


def _items(value: Any, kind: Any, name: str) -> Iterator[tuple[object, Any, str]]:
    """Each item of a list or an object with its type and its name."""
    parts, prefix = get_args(kind), f"{name}." if name else ""
    if get_origin(kind) is dict:
        for key, item in value.items():
            yield key, str, f"a key of {name or 'the file'}"
            yield item, parts[1], f"{prefix}{key}"
    elif _length(kind):
        yield from ((item, part, f"{name}[{n}]") for n, (item, part) in enumerate(zip(value, parts, strict=True)))
    elif _plain(kind) is list:
        yield from ((item, parts[0], f"{name}[{n}]") for n, item in enumerate(value))
    elif _plain(kind) is dict:
        yield from ((value[key], one, f"{prefix}{key}") for key, one in _hints(kind).items() if key in value)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _shown(value: object) -> str:
    """The value in a few words."""
    if isinstance(value, list | dict):
        return _WORDS[type(value)]
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        return "a number of more than 64 bits"  # Python refuses to print the longest
    if value is None:
        return _WORDS[NoneType]
    return repr(value) if len(str(value)) <= 40 else f"{str(value)[:40]!r}…"
