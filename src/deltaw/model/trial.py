"""Trying a base on short rows, to find out what its code allows."""

import torch
from torch import Tensor

# What a part of a model may raise that is tried by itself, if it wants other things than it is given.
CANNOT = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def agree(found: Tensor, right: Tensor, wrong: Tensor) -> bool:
    """Whether values are the right ones up to rounding, and far nearer to them than wrong ones are.

    The second matters in bfloat16, where rounding is wide.
    """
    rounding = torch.finfo(right.dtype).eps ** 0.5 * right.abs().max()
    return bool((found - right).abs().max() <= min(rounding, 0.1 * (wrong - right).abs().max()))
