"""The metrics of a task beside its loss."""

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
    """The metrics that compare predicted with true tokens or labels; `config` is the model's.

    - causal: accuracy, the share of correct tokens.
    - seq2seq: accuracy, and exact_match, the share of rows without a wrong token. Each token is predicted after the
      true tokens before it. Greedy decoding writes exactly the same rows correctly: up to the first error, it reads
      the true tokens as well.
    - classification: accuracy, f1 (the mean over the labels) and matthews (Matthews' correlation coefficient).

    Accuracy, exact_match and f1 are in [0, 1], matthews is in [-1, 1].
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
