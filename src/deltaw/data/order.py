"""The order in which the steps of a seed take the examples of an epoch."""

import numpy as np
import torch
from numpy.typing import NDArray


def permutation(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order of `size` numbers; the training takes epochs from 0 on, other draws take those below 0."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: NDArray[np.int64] = torch.randperm(size, generator=generator).numpy()
    return order


def stratified(lengths: NDArray[np.int32], batch: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order in which every `batch` examples have short, middling and long ones alike.

    The examples of the whole steps of an epoch are sorted by length and cut into `batch` strata of equal size; each
    step takes one example of each stratum, at random. So a step is a fair draw, and arms of different seeds, which
    share a forward pass, meet similar lengths but different examples. Epochs follow one another without a gap: the
    first examples complete the last step of the epoch before, and the last ones begin a step of the next.

    Args:
        lengths: tokens of each example.
        batch: examples in a step.
        seed: of the random order.
        epoch: counted from 0.
    """
    order = permutation(len(lengths), seed, epoch)
    head = min(len(order), -epoch * len(order) % batch)
    tail = len(order) - (len(order) - head) % batch
    places = np.arange(head, tail)
    strata = places[np.argsort(lengths[order[places]], kind="stable")].reshape(batch, -1)
    steps = np.sort(strata, axis=1).T.ravel()  # within a stratum the random order decides
    return order[np.concatenate([np.arange(head), steps, np.arange(tail, len(order))])]


def dealt(order: NDArray[np.int64], hands: int) -> NDArray[np.int64]:
    """Numbers in the order of their sizes, dealt out to `hands` that get equally many: one hand after another.

    Every second round goes backwards, so that sums over two hands differ by no more than the largest size from the
    smallest.
    """
    rounds = order.reshape(-1, hands).copy()
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T.ravel()
