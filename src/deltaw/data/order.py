"""The order in which a seed's steps take the examples of an epoch: shuffled, and yet of like length in a batch."""

from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

WINDOW = 64  # batches whose examples are sorted by length together: fewer leave more padding, more less chance
WINDOWS = 4  # of an epoch at least, so that a small text is not cut into the same batches again and again


def shuffled(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of `size` numbers; epochs below 0 are other draws than those of the training."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: NDArray[np.int64] = torch.randperm(size, generator=generator).numpy()
    return order


def arranged(lengths: NDArray[np.int32], batch: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """All examples of an epoch in the order in which steps take them, `batch` at a time.

    Epochs follow one another without a gap, so that the first examples may complete the last batch of the epoch
    before. The shuffled examples are sorted by length within windows of `WINDOW` batches and cut into batches; the
    order of a window's batches is the same for all seeds. So arms of different seeds, which share a forward pass,
    meet examples of like length at a step, and each its own. The incomplete batches at both ends take the shortest.

    Args:
        lengths: tokens of every example.
        batch: examples of a step.
        seed: of the shuffling.
        epoch: counted from 0.
    """
    order = shuffled(len(lengths), seed, epoch)
    head = min(len(order), -epoch * len(order) % batch)
    whole, tail = divmod(len(order) - head, batch)
    windows = min(whole, max(WINDOWS, round(whole / WINDOW))) or 1
    counts = np.diff(np.linspace(0, whole, windows + 1).astype(int)).tolist()
    parts, at, ends = [], 0, order[:0]
    for window, count in enumerate(counts):
        first, last = head if window == 0 else 0, tail if window == windows - 1 else 0
        taken = order[at : at + first + count * batch + last]
        taken, at = taken[np.argsort(lengths[taken], kind="stable")], at + len(taken)
        batches = taken[first + last :].reshape(count, batch)
        parts += [taken[:first], batches[_common_order(count, epoch, window)].ravel()]
        ends = taken[first : first + last]
    return np.concatenate([*parts, ends])


def _common_order(count: int, epoch: int, window: int) -> list[int]:
    return Random(f"window {window} of epoch {epoch}").sample(range(count), count)
