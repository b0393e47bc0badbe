"""Arms to try layers with."""

from deltaw.lora.arm import Arm


def arm(name: str = "r2-s0", rank: int = 2, scaling: str = "alpha/r", control: str | None = None) -> Arm:
    return Arm(name, rank, seed=0, alpha=16.0, scaling=scaling, lr=1e-3, control=control)
