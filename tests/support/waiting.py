"""Calls for which a program would have to wait for a GPU, counted on a CPU."""

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.utils.data
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result has a value or a shape that is only known once a device has computed it.
OPERATORS = {
    "_local_scalar_dense",
    "_unique2",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "repeat_interleave.Tensor",
    "unique_consecutive",
    "unique_dim",
}

# Python's ways to a tensor's values, some of which call no operator where the tensor is on a CPU.
METHODS: set[Callable[..., Any]] = {
    Tensor.__bool__,
    Tensor.__contains__,
    Tensor.__float__,
    Tensor.__index__,
    Tensor.__int__,
    Tensor.cpu,
    Tensor.item,
    Tensor.numpy,
    Tensor.tolist,
}


class Waiting:
    """Within the block, counts the calls that would wait for a GPU, by name and by place outside of PyTorch.

    What makes batches is left out: it works on the CPU.
    """

    def __init__(self) -> None:
        self.calls = Counter[str]()
        self._modes: list[Any] = [_Operators(self.calls), _Methods(self.calls)]

    def __enter__(self) -> Counter[str]:
        for mode in self._modes:
            mode.__enter__()
        return self.calls

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, at)


class _Operators(TorchDispatchMode):
    def __init__(self, calls: Counter[str]):
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        by_mask = name.startswith("index") and any(_is_mask(index) for index in _indices(args))
        if by_mask or name in OPERATORS or name.partition(".")[0] in OPERATORS:
            _count(self.calls, name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, calls: Counter[str]):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in METHODS:
            _count(self.calls, func.__name__)
        return func(*args, **(kwargs or {}))


def _count(calls: Counter[str], name: str) -> None:
    frames = traceback.extract_stack()
    if not any(frame.filename.startswith(torch.utils.data.__path__[0]) for frame in frames):
        inside = (str(Path(torch.__file__).parent), __file__)
        *_, place = (frame for frame in frames if not frame.filename.startswith(inside))
        calls[f"{name} at {Path(place.filename).name}:{place.lineno}"] += 1


def _indices(args: Any) -> Any:
    return args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
