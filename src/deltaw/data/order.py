"""The order in which a seed's steps take the examples of an epoch: random, with similar lengths in a batch."""

from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

WINDOW = 64  # batches per window, whose examples are sorted by length: fewer pad more, more are less random
WINDOWS = 4  # at least per epoch, so that a small text is not cut into the same batches in every epoch


def permutation(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order of `size` numbers; the training takes epochs from 0 on, other draws take those below 0."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: NDArray[np.int64] = torch.randperm(size, generator=generator).numpy()
    return order


def order_by_length(lengths: NDArray[np.int32], batch: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which steps take all examples of an epoch, `batch` at a time.

    The random order of the epoch is cut into windows of about `WINDOW` batches. Within a window, the examples are
    sorted by length and cut into batches, and the batches are shuffled alike for all seeds. So arms of different
    seeds, which share a forward pass, meet similar lengths at a step, but different examples.

    Epochs follow one another without a gap: the first examples of an epoch complete the last batch of the epoch
    before. The incomplete batches at both ends take the shortest examples of their windows.

    Args:
        lengths: tokens of each example.
        batch: examples in a step.
        seed: of the random order.
        epoch: counted from 0.
    """
    order = permutation(len(lengths), seed, epoch)
    head = min(len(order), -epoch * len(order) % batch)
    full, tail = divmod(len(order) - head, batch)
    windows = min(full, max(WINDOWS, round(full / WINDOW))) or 1
    counts = np.diff(np.linspace(0, full, windows + 1).astype(int)).tolist()
    parts, at, last_batch = [], 0, order[:0]
    for window, count in enumerate(counts):
        first, last = head if window == 0 else 0, tail if window == windows - 1 else 0
        taken = order[at : at + first + count * batch + last]
        taken, at = taken[np.argsort(lengths[taken], kind="stable")], at + len(taken)
        batches = taken[first + last :].reshape(count, batch)
        parts += [taken[:first], batches[_order_of_batches(count, epoch, window)].ravel()]
        last_batch = taken[first : first + last]
    return np.concatenate([*parts, last_batch])


def _order_of_batches(count: int, epoch: int, window: int) -> list[int]:
    """The same for all seeds."""
    return Random(f"window {window} of epoch {epoch}").sample(range(count), count)
