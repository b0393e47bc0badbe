"""Tensors of a safetensors file, located through its header and read one at a time.

A mapped file counts as resident memory, page by page. Reading one tensor at a time needs the memory of the largest
tensor, and runs at the speed of the page cache.
"""

import json
import threading
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deltaw.errors import UserError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LARGEST = torch.finfo(torch.float32).max  # products of such values stay finite in float64

# What a file is that begins like this, whatever its name says.
_BY_CONTENT = {
    b"version https://git-lfs": "a pointer of Git LFS: run git lfs pull in its folder",
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"pk\x03\x04": "an archive or pickled by torch.save, and nothing pickled is read: unpack it, or save safetensors",
    b"gguf": "in the format of llama.cpp: give the PEFT folder that it was converted from",
}


class Buffers(threading.local):
    """Memory to read tensors into, reused for every tensor of a kind: fresh pages cost more than reading.

    Each thread has its own buffers.
    """

    def __init__(self) -> None:
        self._held: dict[object, Tensor] = {}

    def get(self, kind: object, octets: int) -> Tensor:
        """`octets` bytes, uint8 (octets,): the same memory each time, whose old content is overwritten."""
        if kind not in self._held or len(self._held[kind]) < octets:
            self._held[kind] = torch.empty(octets, dtype=torch.uint8)
        return self._held[kind][:octets]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    def read(self, buffers: Buffers | None = None, kind: object = None) -> Tensor:
        """Read the tensor, into the buffer of its `kind` or into new memory.

        Raises:
            UserError: the file has changed since its header was read; or a value is not finite or beyond the range of
                float32. With `buffers` this is left, but for float64, to the caller's products, at less cost.
        """
        octets = prod(self.shape) * self.dtype.itemsize
        memory = buffers.get(kind, octets) if buffers else torch.empty(octets, dtype=torch.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset)
                complete = file.readinto(memory.numpy().data) == octets
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error}): copy or save the adapter again") from None
        if not complete:
            raise UserError(f"{self.path} ends within {self.name}: it changed while it was read, start again")
        tensor = memory.view(self.dtype).view(self.shape)
        if not buffers or self.dtype == torch.float64:
            self._check_range(tensor)
        return tensor

    def part(self, start: int, rows: int) -> "StoredTensor":
        """The tensor that holds `rows` rows of this one from row `start`."""
        row = prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, shape=(rows, *self.shape[1:]), offset=self.offset + start * row)

    def _check_range(self, tensor: Tensor) -> None:
        low, high = (float(end) for end in tensor.aminmax())  # both are NaN if a value is
        if not (isfinite(low) and isfinite(high)):
            raise UserError(f"{self.path}: {self.name} holds NaN or infinity: take a step before training diverged")
        if (largest := max(-low, high)) > _LARGEST:
            cause = f"holds values up to {largest:.0e}, beyond float32"
            raise UserError(f"{self.path}: {self.name} {cause}: take a step before training diverged")


def by_content(path: Path) -> str | None:
    """What a file is by its first bytes, and the way on; None if they tell of none of the known mistakes."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
    except (OSError, ValueError):  # a null character is no part of a name
        return None
    return next((cause for first, cause in _BY_CONTENT.items() if start.startswith(first)), None)


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """By name: dtype, shape and data_offsets of every tensor; offsets in bytes from the start of the file.

    Raises:
        UserError: the file is missing, cut short or broken, or may not be read.
    """
    try:
        # The file is opened first, because safe_open calls one missing that may not be read. safe_open refuses a file
        # whose length is not the one in its header.
        with path.open("rb") as file, safe_open(path, framework="pt"):
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: save the adapter as safetensors, no .bin is read") from None
    except PermissionError:
        raise UserError(f"{path} may not be read: run chmod a+r on it, or ask its owner to") from None
    except (OSError, SafetensorError) as error:
        if cause := by_content(path):
            raise UserError(f"{path} is {cause}") from None
        raise UserError(f"{path} cannot be read ({error}): copy or save the adapter again") from None
    header.pop("__metadata__", None)
    for entry in header.values():
        entry["data_offsets"] = [8 + length + offset for offset in entry["data_offsets"]]
    return header


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in the header of a readable safetensors file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def locate(path: Path, name: str, entry: dict[str, Any]) -> StoredTensor:
    """The tensor that an entry of the header describes.

    Raises:
        UserError: the dtype is not a floating-point type of at least 16 bits.
    """
    if entry["dtype"] not in _DTYPES:
        raise UserError(f"{path}: {name} has dtype {entry['dtype']}: save it as one of {', '.join(_DTYPES)}")
    return StoredTensor(path, name, _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"][0])
