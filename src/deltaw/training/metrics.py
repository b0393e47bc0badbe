"""The metrics of a task, beside its loss."""

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassExactMatch,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from transformers import PretrainedConfig

from deltaw.data.example import IGNORED
from deltaw.training.objectives import Classification, Objective, Seq2Seq


def scores(objective: Objective, config: PretrainedConfig) -> MetricCollection:
    """Of predicted and true tokens or labels, for a model of this config.

    - causal: accuracy, the share of tokens that are right.
    - seq2seq: the same, and exact_match, the share of rows that are right throughout. Each token is predicted behind
      the true ones before it; a row that is right throughout so is one that greedy decoding writes exactly, and the
      other way round: until the first error the two read the same.
    - classification: accuracy, f1 (the mean of the labels') and matthews (Matthews' correlation).
    """
    if isinstance(objective, Classification):
        return _of_labels(config.num_labels)  # type: ignore[arg-type]
    tokens: int = config.get_text_config().vocab_size
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(tokens, average="micro", ignore_index=IGNORED, validate_args=False)
    }
    if isinstance(objective, Seq2Seq):
        metrics["exact_match"] = MulticlassExactMatch(tokens, ignore_index=IGNORED, validate_args=False)
    return MetricCollection(metrics, compute_groups=False)


def _of_labels(labels: int) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(labels, average="micro"),
        "f1": MulticlassF1Score(labels, average="macro"),
        "matthews": MulticlassMatthewsCorrCoef(labels),
    }
    return MetricCollection(metrics, compute_groups=False)
