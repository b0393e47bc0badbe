"""The metrics of a task beside its loss.

- causal: accuracy, the share of correct tokens.
- seq2seq: accuracy, and exact_match, the share of rows without a wrong token. Each token is predicted after the true
  tokens before it. Greedy decoding writes exactly the same rows correctly: up to the first error, it reads the true
  tokens as well.
- classification: accuracy, f1 (the mean over the labels) and matthews (Matthews' correlation coefficient).

Accuracy, exact_match and f1 are in [0, 1], matthews is in [-1, 1].
"""

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassMatthewsCorrCoef


def of_tokens(
    right: Int[Tensor, "arms examples"], labels: Int[np.ndarray, " examples"], whole: bool
) -> list[dict[str, float]]:
    """The metrics of each arm by name.

    Args:
        right: rightly predicted tokens of each example.
        labels: tokens of each example.
        whole: whether exact_match is among them.
    """
    found = []
    for of_arm in right.numpy():
        exact = {"exact_match": float((of_arm == labels).mean())} if whole else {}
        found.append({"accuracy": float(of_arm.sum() / labels.sum())} | exact)
    return found


def of_classes(labels: int) -> MetricCollection:
    """The metrics that compare predicted with true labels, counted from 0 to `labels` − 1."""
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(labels, average="micro"),
        "f1": MulticlassF1Score(labels, average="macro"),
        "matthews": MulticlassMatthewsCorrCoef(labels),
    }
    return MetricCollection(metrics, compute_groups=False)
