"""What every arm reaches on examples that no arm trains on."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch import Tensor
from torchmetrics import MetricCollection
from tqdm import tqdm

from deltaw.run.metrics import COLUMNS_OF_EVALUATION, VALIDATION
from deltaw.training.metrics import of_classes, of_tokens
from deltaw.training.objectives import (
    Classification,
    Seq2Seq,
    by_row,
    losses_and_predictions,
    repeated,
    targets,
)
from deltaw.training.task import LoraArms

Batches = list[tuple[NDArray[np.int64], dict[str, Tensor]]]  # as `Examples.batches` makes them


class Measured(NamedTuple):
    """What arms reach on each example: losses are in nats, summed over the labels.

    Attributes:
        examples: their numbers, in ascending order.
        labels: how many each example has.
        losses: of every arm.
        right: number of labels that an arm predicts.
    """

    examples: NDArray[np.int64]
    labels: NDArray[np.int64]
    losses: Float[Tensor, "arms examples"]
    right: Int[Tensor, "arms examples"]

    def table(self, split: str, groups: NDArray[np.int64], whose: Iterable[tuple[int, dict[str, Any]]]) -> pd.DataFrame:
        """Rows of `COLUMNS_OF_EVALUATION`.

        Args:
            split: what the examples are held out for.
            groups: of all examples of the data set.
            whose: numbers of arms in `losses` and `right`, with arm, step, cut and dropped.
        """
        of_examples = {"example": self.examples, "group": groups[self.examples], "labels": self.labels}
        tables = [
            pd.DataFrame({**of_examples, "loss": self.losses[k].numpy(), "right": self.right[k].numpy()}).assign(
                split=split, **about
            )
            for k, about in whose
        ]
        return pd.concat(tables)[list(COLUMNS_OF_EVALUATION)].astype(COLUMNS_OF_EVALUATION)


def validate(
    trainer: Trainer, task: LoraArms, batches: Batches, groups: NDArray[np.int64], before_each: Callable[[], None]
) -> tuple[dict[str, list[float]], pd.DataFrame]:
    """Measure every arm on all rows; the processes share the batches, and each gets the result.

    Args:
        trainer: knows the processes, the device, the precision and the step.
        task: the arms; in training mode afterwards.
        batches: rows that no arm trains on, each row once, with the numbers of their examples.
        groups: of all examples of the data set.
        before_each: called before each batch; what it raises leaves the validation.

    Returns:
        By name, a value per arm: loss (nats per token, or per row of a classification), the metrics in
        `deltaw.training.metrics`, and perplexity where the loss is per token. Then the rows of `COLUMNS_OF_EVALUATION`.
    """
    classes = task.base.config.num_labels if isinstance(task.objective, Classification) else 0
    metrics = [of_classes(classes).to(task.device) for _ in task.arms if classes]
    task.eval()
    try:
        each = measure(trainer, task, len(task.arms), batches, VALIDATION, metrics, before_each)
    finally:
        task.train()
    mean = each.losses.sum(1) / each.labels.sum()
    values: list[dict[str, Any]] = [metric.compute() for metric in metrics]  # over all processes
    values = values or of_tokens(each.right, each.labels, whole=isinstance(task.objective, Seq2Seq))
    measured = {"loss": mean.tolist()} | {name: [float(value[name]) for value in values] for name in values[0]}
    perplexity = {"perplexity": mean.exp().tolist()} if task.objective.unit == "token" else {}
    whose: list[dict[str, Any]] = [
        {"arm": arm.name, "step": trainer.global_step, "cut": None, "dropped": ""} for arm in task.arms
    ]
    return measured | perplexity, each.table(VALIDATION, groups, enumerate(whose))


def measure(
    trainer: Trainer,
    task: LoraArms,
    arms: int,
    batches: Batches,
    purpose: str,
    metrics: Sequence[MetricCollection] = (),
    before_each: Callable[[], None] = lambda: None,
) -> Measured:
    """What the arms on the base reach on each example; the processes share the batches, and each gets the result.

    Processes that hold parts of the base pass through it at the same time. If the batches do not come out even, some
    process computes the last one once more and does not count it.

    Args:
        trainer: knows the processes and the precision.
        task: in evaluation mode.
        arms: number of the arms, or of what stands in their place.
        batches: each row once, with the numbers of their examples.
        purpose: names the bar in a terminal.
        metrics: of each arm, updated on the way with the batches of this process.
        before_each: called before each batch, by all processes.
    """
    examples = np.sort(np.concatenate([numbers for numbers, _ in batches]))
    precise = torch.float32 if task.device.type == "mps" else torch.float64  # MPS has no float64
    sums = torch.zeros(2, arms, len(examples), dtype=precise, device=task.device)
    rounds = -(-len(batches) // trainer.world_size)
    mine = range(trainer.global_rank, rounds * trainer.world_size, trainer.world_size)
    hidden = None if trainer.is_global_zero else True  # None hides the bar outside a terminal
    for number in tqdm(mine, purpose, leave=False, disable=hidden):
        before_each()
        numbers, rows = batches[min(number, len(batches) - 1)]
        batch = trainer.strategy.batch_to_device(rows)
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            losses, predicted = losses_and_classes(task, batch, arms)
        if number < len(batches):
            true = targets(batch)
            at = torch.from_numpy(np.searchsorted(examples, numbers)).to(sums.device)
            right = torch.stack([by_row(batch, of_arm.to(precise)) for of_arm in predicted == true])
            sums[:, :, at] = torch.stack([losses.to(precise), right])
            for metric, classes in zip(metrics, predicted, strict=False):
                metric.update(classes, true)
    # The other processes have zeros where this one has counted, so the sum is the same on any number of processes.
    losses, right = trainer.strategy.reduce(sums, reduce_op="sum").cpu().double()
    labels = np.zeros(len(examples), np.int64)
    for numbers, batch in batches:
        labels[np.searchsorted(examples, numbers)] = by_row(batch, torch.ones_like(batch["labelled"])).numpy()
    return Measured(examples, labels, losses, right.long())


def losses_and_classes(
    task: LoraArms, batch: dict[str, Tensor], arms: int
) -> tuple[Float[Tensor, "arms rows"], Int[Tensor, "arms labels"]]:
    """Losses of all arms on the same rows, each row's summed over its labels, in nats, and the predicted classes.

    Args:
        task: in evaluation mode.
        batch: the rows once, not once per arm.
        arms: number of the arms, or of what stands in their place.
    """
    rows = repeated(batch, arms)
    losses, predicted = losses_and_predictions(task.objective, task.base, rows)
    return by_row(rows, losses).view(arms, -1), predicted.view(arms, -1)
