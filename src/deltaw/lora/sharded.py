"""Tensors of which every process holds a part."""

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Any) -> Any:
    """A tensor that processes hold in parts, put together in each of them; anything else as it is.

    All processes have to ask for the same ones in the same order.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(value: Any, like: Tensor) -> Any:
    """This process's part of `value`, if `like` is held in parts and of the same shape."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
