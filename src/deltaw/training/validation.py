"""What every arm reaches on the validation rows."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch import Tensor
from torchmetrics import MetricCollection
from tqdm import tqdm

from deltaw.data.example import IGNORED
from deltaw.training.metrics import scores
from deltaw.training.objectives import label_losses
from deltaw.training.task import LoraArms

Batches = list[tuple[NDArray[np.int64], dict[str, Tensor]]]  # as `Examples.batches` makes them


def validate(trainer: Trainer, task: LoraArms, batches: Batches) -> tuple[dict[str, list[float]], pd.DataFrame]:
    """Measure every arm on all rows; the processes share the batches, and each gets the result.

    Args:
        trainer: knows the processes, the device and the precision.
        task: the arms; in training mode afterwards.
        batches: rows that no arm trains on, each row once, with the numbers of their examples.

    Returns:
        By name, a value per arm: loss (nats per token, or per row of a classification), the metrics of the task (see
        `scores`), and perplexity where the loss is per token. Then a row per arm and example, by ascending number of
        the example; the columns are those of `COLUMNS_OF_EVALUATION` but step.
    """
    examples = np.sort(np.concatenate([numbers for numbers, _ in batches]))
    metrics = [scores(task.objective, task.base.config).to(task.device) for _ in task.arms]
    task.eval()
    sums = _pass(trainer, task, batches, examples, metrics)
    task.train()
    # The other processes have zeros where this one has counted, so the sum is the same on any number of processes.
    losses, right = trainer.strategy.reduce(sums, reduce_op="sum").cpu().double()
    labels = np.zeros(len(examples), np.int64)
    for numbers, batch in batches:
        labels[np.searchsorted(examples, numbers)] = (task.objective.targets(batch) != IGNORED).sum(1).numpy()
    mean = losses.sum(1) / labels.sum()
    values = [metric.compute() for metric in metrics]  # over all processes
    measured = {"loss": mean.tolist()} | {name: [float(value[name]) for value in values] for name in values[0]}
    perplexity = {"perplexity": mean.exp().tolist()} if task.objective.unit == "token" else {}
    each = pd.DataFrame(
        {
            "arm": np.repeat([arm.name for arm in task.arms], len(examples)),
            "example": np.tile(examples, len(task.arms)),
            "loss": losses.flatten().numpy(),
            "labels": np.tile(labels, len(task.arms)),
            "right": right.flatten().long().numpy(),
        }
    )
    return measured | perplexity, each


def _pass(
    trainer: Trainer,
    task: LoraArms,
    batches: Batches,
    examples: NDArray[np.int64],
    metrics: list[MetricCollection],
) -> Float[Tensor, "2 arms examples"]:
    """Summed losses of every arm on every example, in nats, and the number of its right predictions.

    They are 0 for the examples of other processes; `metrics` are updated on the way. Processes that hold parts of the
    base pass through it at the same time. If the batches do not come out even, some process computes the last one
    once more and does not count it.
    """
    precise = torch.float32 if task.device.type == "mps" else torch.float64  # MPS has no float64
    sums = torch.zeros(2, len(task.arms), len(examples), dtype=precise, device=task.device)
    rounds = -(-len(batches) // trainer.world_size)
    mine = range(trainer.global_rank, rounds * trainer.world_size, trainer.world_size)
    hidden = None if trainer.is_global_zero else True  # None hides the bar outside a terminal
    for number in tqdm(mine, "validation", leave=False, disable=hidden):
        numbers, rows = batches[min(number, len(batches) - 1)]
        batch = trainer.strategy.batch_to_device(rows)
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            losses, predicted = losses_and_classes(task, batch)
        if number < len(batches):
            targets = task.objective.targets(batch)
            at = torch.from_numpy(np.searchsorted(examples, numbers)).to(sums.device)
            sums[:, :, at] = torch.stack([losses.to(precise), (predicted == targets).sum(2).to(precise)])
            for metric, classes in zip(metrics, predicted, strict=True):
                metric.update(classes, targets)
    return sums


def losses_and_classes(
    task: LoraArms, batch: dict[str, Tensor]
) -> tuple[Float[Tensor, "arms rows"], Int[Tensor, "arms rows tokens"]]:
    """Losses of all arms on the same rows, each row's summed over its labels, in nats, and the predicted classes.

    Args:
        task: in evaluation mode.
        batch: the rows once, not once per arm.
    """
    arms = len(task.arms)
    repeated = {name: tensor.repeat(arms, 1) for name, tensor in batch.items()}
    logits, targets = task.objective.logits(task.base, repeated), task.objective.targets(repeated)
    losses = label_losses(logits, targets).sum(1)
    return losses.unflatten(0, (arms, -1)), logits.argmax(-1).unflatten(0, (arms, -1))
