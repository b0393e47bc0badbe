"""Train LoRA at several ranks over one frozen base, and measure which directions of ΔW they share."""

from deltaw.adapter import load_adapter
from deltaw.study import compare
from deltaw.subspace import similarity

__all__ = ["compare", "load_adapter", "similarity"]
