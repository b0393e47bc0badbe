"""Train LoRA at several ranks over one frozen base, and measure which directions of ΔW they share."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaw.adapter import load_adapter
    from deltaw.null import chance, k_star
    from deltaw.spectra import spectrum
    from deltaw.study import compare
    from deltaw.subspace import similarity

__version__ = "0.1.0"
__all__ = ["chance", "compare", "k_star", "load_adapter", "similarity", "spectrum"]

_HOMES = {
    "chance": "deltaw.null",
    "compare": "deltaw.study",
    "k_star": "deltaw.null",
    "load_adapter": "deltaw.adapter",
    "similarity": "deltaw.subspace",
    "spectrum": "deltaw.spectra",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the commands check their config before PyTorch and pandas are loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
