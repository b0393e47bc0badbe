"""Ways to spoil a file: what copying, editing, other programs and ill will do to an adapter's files and a run's."""

import json
import struct
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import pandas as pd

# What JSON cannot be dumped with, in its place and as text.
_RAW = {'"@DEEP@"': "[" * 2000 + "]" * 2000, '"@HUGE@"': "9" * 5000}

_NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/dev/zero",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "ΔW",
    "名前",
    "\ud800",
    "a" * 300,
]
_PATTERNS = ["(", "[", "*", "(a+)+$", "(.*.*.*.*)*x", "(?!a)", "\\", "layers.0", ".*", "a{1000}", "(?P<n>.)(?P=n)"]
_NUMBERS = [0, -1, 1, 2, 3, 16, 1.5, 2**31, 2**63, 2**64, 10**400, 1e300, -1e-300, float("inf"), float("nan")]
_OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    [[]],
    [1, "a"],
    {},
    {"a": {}},
    {"a": [1]},
    "@DEEP@",
    "@HUGE@",
    "16",
    "a" * 10000,
]
_JUNK = [*_NAMES, *_PATTERNS, *_NUMBERS, *_OTHERS]

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I8": "<i1", "F8_E4M3": "<u1", "BF16": "<u2", "U64": "<u8"}
_VALUES = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 5e-324, 1e-200, 1e200, 1e308, 0.0]

_BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


def spoil(name: str, content: bytes, rng: Random) -> bytes:
    """The file's content with one random mutation, that its format knows or that is of bytes alone."""
    ways: dict[str, Callable[[bytes, Random], bytes]] = {
        "json": _spoil_json,
        "safetensors": _spoil_safetensors,
        "csv": _spoil_csv,
        "parquet": _spoil_parquet,
    }
    way = ways.get(name.rpartition(".")[2], _spoil_bytes)
    try:
        with np.errstate(all="ignore"):
            return (way if rng.random() < 0.8 else _spoil_bytes)(content, rng)
    except (*_BROKEN, struct.error):
        return _spoil_bytes(content, rng)  # an earlier mutation has broken the format


def _spoil_bytes(content: bytes, rng: Random) -> bytes:
    spoilt, place = bytearray(content), rng.randrange(len(content) + 1)
    match rng.randrange(8):
        case 0:
            return content[:place]
        case 1:
            return content + rng.randbytes(rng.randrange(1, 100))
        case 2:
            return rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b" "]) + content
        case 3:
            return content[:place] + rng.choice([b"\xff", b"\0", b"\xed\xa0\x80", b"\n", b","]) + content[place:]
        case 4:
            return rng.choice([b"", b"null", b"[]", b"{}", b"<!DOCTYPE html>", b"version https://git-lfs", b"PK\3\4"])
        case 5:
            return content[:place] + rng.randbytes(min(8, len(content) - place)) + content[place + 8 :]
    for _ in range(rng.randrange(1, 5) if content else 0):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def _spoil_json(content: bytes, rng: Random) -> bytes:
    return _dumped(_with_junk(json.loads(content), rng), rng)


def _dumped(value: Any, rng: Random) -> bytes:
    text = json.dumps(value)
    for place, raw in _RAW.items():
        text = text.replace(place, raw)
    if isinstance(value, dict) and value and rng.random() < 0.1:
        key = json.dumps(rng.choice(list(value)))
        text = f"{text[:-1]}, {key}: {json.dumps(rng.choice(_NUMBERS[:8]))}}}"  # twice the same key
    return text.encode()


def _with_junk(value: Any, rng: Random) -> Any:
    """The value with junk in place of a part of it, or without the part, or with another key."""
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _with_junk(value[place], rng), *value[place + 1 :]]
    if not isinstance(value, dict) or not value or rng.random() < 0.05:
        return rng.choice(_JUNK)
    key = rng.choice(list(value))
    match rng.randrange(6):
        case 0:
            return {one: value[one] for one in value if one != key}
        case 1:
            return {(rng.choice(_NAMES + _PATTERNS) if one == key else one): value[one] for one in value}
        case 2:
            return value | {rng.choice(_NAMES + _PATTERNS): rng.choice([value[key], rng.choice(_JUNK)])}
    return value | {key: _with_junk(value[key], rng)}


def _spoil_safetensors(content: bytes, rng: Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    match rng.randrange(7):
        case 0:  # the header alone
            header = _with_junk(header, rng)
        case 1:  # a length that is not true
            declared = rng.choice([0, 1, length - 1, length + 1, 10**8, 2**40, 2**63, 2**64 - 1])
            return struct.pack("<Q", declared) + content[8:]
        case 2:  # a shape that is not true
            shape = header[rng.choice(names)]["shape"]
            shape[rng.randrange(len(shape))] = rng.choice([0, 1, 3, 2**31, 2**62, -1, shape[0] + 1])
        case 3:  # another dtype, or names exchanged
            one, other = rng.choice(names), rng.choice(names)
            header[one]["dtype"] = rng.choice(list(_DTYPES))
            header[one], header[other] = header[other], header[one]
        case _:  # other values, shapes, dtypes and names, in a file that is sound
            return _rewritten(header, body, rng)
    head = _dumped(header, rng)
    return struct.pack("<Q", len(head)) + head + body


def _rewritten(header: dict[str, Any], body: bytes, rng: Random) -> bytes:
    metadata = {"__metadata__": header.pop("__metadata__")} if "__metadata__" in header else {}
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[first:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    match rng.randrange(6):
        case 0:
            tensor.flat[rng.randrange(tensor.size)] = rng.choice(_VALUES)
        case 1:
            tensors[name] = np.full_like(tensor, rng.choice(_VALUES))
        case 2:
            tensors[name] = np.full(tensor.shape, rng.choice(_VALUES), "<f8")
        case 3:
            shape = [rng.choice([0, 1, 2, 3, 4, 8, 16, 17, 48]) for _ in range(rng.randrange(4))]
            tensors[name] = np.resize(tensor, shape).astype(rng.choice(["<f8", "<f4", "<f2"]))
        case 4:
            parts = name.split(".")
            parts[rng.randrange(len(parts))] = rng.choice([*_NAMES, "lora_A", "lora_B", "weight", "0", "99999999999"])
            tensors[".".join(parts)] = tensors.pop(name)
        case 5:
            del tensors[name]
    return _packed(tensors, metadata)


def _packed(tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, Any]) -> bytes:
    codes = {np.dtype(code): name for name, code in _DTYPES.items() if name.startswith(("F64", "F32", "F16", "I8"))}
    header, body = dict(metadata), b""
    for name, tensor in tensors.items():
        octets = tensor.tobytes()
        place = [len(body), len(body) + len(octets)]
        header[name] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        body += octets
    head = json.dumps(header, ensure_ascii=False).encode("utf-8", "replace")
    return struct.pack("<Q", len(head)) + head + body


def _spoil_csv(content: bytes, rng: Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = rng.choice(rows[: 1 + rng.randrange(len(rows))])
    match rng.randrange(4):
        case 0:
            row[rng.randrange(len(row))] = str(rng.choice(_NAMES[:10] + _NUMBERS + ['"', "1e999", "", " "]))
        case 1:
            del row[rng.randrange(len(row))]
        case 2:
            row.insert(rng.randrange(len(row) + 1), str(rng.choice(_NUMBERS)))
        case 3:
            rows.append(list(row))
    return "\n".join(",".join(one) for one in rows).encode("utf-8", "replace")


def _spoil_parquet(content: bytes, rng: Random) -> bytes:
    table = pd.read_parquet(BytesIO(content))
    column = rng.choice(list(table))
    match rng.randrange(5):
        case 0:
            del table[column]
        case 1:
            table = table.astype({column: rng.choice(["str", "float64", "bool"])})
        case 2:
            value = rng.choice([None, np.nan, np.inf, -1, 0, 2**62, 1e300])
            table[column] = table[column].astype("float64" if column != "arm" else "object")
            table.loc[rng.randrange(len(table)), column] = value if column != "arm" else rng.choice([None, "", "ΔW"])
        case 3:
            table = pd.concat([table, table.iloc[[rng.randrange(len(table))]]])
        case 4:
            table = table.iloc[rng.randrange(len(table)) :].rename(columns={column: rng.choice(["x", "step", "arm"])})
    file = BytesIO()
    table.to_parquet(file)
    return file.getvalue()
