"""What every arm reaches on the validation rows."""

import torch
from jaxtyping import Float
from pytorch_lightning import Trainer
from torch import Tensor
from torchmetrics import MetricCollection
from tqdm import tqdm

from deltaw.data.example import IGNORED
from deltaw.training.metrics import scores
from deltaw.training.task import LoraArms


def validate(trainer: Trainer, task: LoraArms, batches: list[dict[str, Tensor]]) -> dict[str, list[float]]:
    """Measure every arm on all rows; the processes share the batches, and each gets the result.

    Args:
        trainer: knows the processes, the device and the precision.
        task: the arms; in training mode afterwards.
        batches: rows that no arm trains on, each row once.

    Returns:
        By name, a value per arm: loss (nats per token, or per row of a classification), the metrics of the task (see
        `scores`), and perplexity where the loss is per token.
    """
    metrics = [scores(task.objective, task.base.config).to(task.device) for _ in task.arms]
    task.eval()
    sums = _pass(trainer, task, batches, metrics)
    task.train()
    count = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    mean = trainer.strategy.reduce(sums, reduce_op="sum") / count
    values = [metric.compute() for metric in metrics]  # over all processes
    measured = {"loss": mean.tolist()} | {name: [float(value[name]) for value in values] for name in values[0]}
    return measured | ({"perplexity": mean.exp().tolist()} if task.objective.unit == "token" else {})


def _pass(
    trainer: Trainer, task: LoraArms, batches: list[dict[str, Tensor]], metrics: list[MetricCollection]
) -> Float[Tensor, " arms"]:
    """Summed losses of every arm on this process's share of the batches, in nats; `metrics` are updated on the way.

    Processes that hold parts of the base pass through it at the same time. If the batches do not come out even, some
    process computes the last one once more and does not count it.
    """
    precise = torch.float32 if task.device.type == "mps" else torch.float64  # MPS has no float64
    sums = torch.zeros(len(task.arms), dtype=precise, device=task.device)
    rounds = -(-len(batches) // trainer.world_size)
    mine = range(trainer.global_rank, rounds * trainer.world_size, trainer.world_size)
    hidden = None if trainer.is_global_zero else True  # None hides the bar outside a terminal
    for number in tqdm(mine, "validation", leave=False, disable=hidden):
        batch = trainer.strategy.batch_to_device(batches[min(number, len(batches) - 1)])
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            losses, predicted = task.validation_sums(batch)
        if number < len(batches):
            sums += losses
            for metric, classes in zip(metrics, predicted, strict=True):
                metric.update(classes, task.objective.targets(batch))
    return sums
