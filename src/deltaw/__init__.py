"""Train LoRA at several ranks over one frozen base, and measure which directions of ΔW they share."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaw.maths.random_subspaces import chance, k_star
    from deltaw.maths.spectrum import spectrum
    from deltaw.maths.subspace import similarity
    from deltaw.report.notebook import advise, compare, load_arm
    from deltaw.run.adapter import load_adapter

__version__ = "0.3.0.dev0"
__all__ = ["advise", "chance", "compare", "k_star", "load_adapter", "load_arm", "similarity", "spectrum"]

_HOMES = {
    "advise": "deltaw.report.notebook",
    "chance": "deltaw.maths.random_subspaces",
    "compare": "deltaw.report.notebook",
    "k_star": "deltaw.maths.random_subspaces",
    "load_adapter": "deltaw.run.adapter",
    "load_arm": "deltaw.report.notebook",
    "similarity": "deltaw.maths.subspace",
    "spectrum": "deltaw.maths.spectrum",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the commands check their config before PyTorch and pandas are loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
