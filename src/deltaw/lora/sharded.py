"""Tensors that processes share out: each holds a part."""

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def gather(tensor: Any) -> Any:
    """A tensor that processes share out, complete in each of them; anything else as it is.

    All processes have to gather the same tensors in the same order.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(value: Any, like: Tensor) -> Any:
    """This process's part of `value` if processes share out `like` and both have one shape; else `value`."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
