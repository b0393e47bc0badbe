"""Train LoRA at several ranks over one frozen base, and measure which directions of ΔW they share."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaw.adapter import load_adapter
    from deltaw.study import compare
    from deltaw.subspace import similarity

__all__ = ["compare", "load_adapter", "similarity"]

_HOMES = {"compare": "deltaw.study", "load_adapter": "deltaw.adapter", "similarity": "deltaw.subspace"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the commands check their config before PyTorch and pandas are loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
