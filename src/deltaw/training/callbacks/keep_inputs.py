"""Keep what the adapted modules of the base read."""

from functools import partial
from random import Random

import torch
from jaxtyping import Bool
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from deltaw.data.pairs import SAMPLE
from deltaw.lora.layers import inputs_of_base
from deltaw.run.writer import RunWriter
from deltaw.training.task import LoraArms


class KeepInputs(Callback):
    """Before the first step, write what every adapted module of the base reads at some tokens, unless it is there.

    All processes compute them, since each may hold a part of the base alone, and process 0 writes. Nothing of it
    reaches the training.

    Args:
        writer: the run directory.
        batches: rows that the tokens are drawn from: `SAMPLE`, or all where there are fewer. How they are cut does
            not matter. An encoder's and a decoder's are drawn apart.
    """

    def __init__(self, writer: RunWriter, batches: list[dict[str, Tensor]]):
        self.writer, self.batches = writer, batches

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.strategy.broadcast(self.writer.inputs.exists()):
            return
        batches = [trainer.strategy.batch_to_device(batch) for batch in self.batches]
        sequences = zip(*(task.objective.read(batch) for batch in batches), strict=True)
        chosen = zip(*(drawn(list(masks)) for masks in sequences), strict=True)
        task.eval()
        with trainer.precision_plugin.val_step_context():
            parts = [
                inputs_of_base(task.base, partial(task.objective.logits, task.base, batch), masks)
                for batch, masks in zip(batches, chosen, strict=True)
            ]
        task.train()
        if trainer.is_global_zero:
            inputs = {module: torch.cat([part[module] for part in parts]) for module in task.modules_adapted}
            self.writer.write_inputs(inputs)


def drawn(masks: list[Bool[Tensor, "_ _"]]) -> list[Bool[Tensor, "_ _"]]:
    """`SAMPLE` of all tokens in the masks, or all where there are fewer: the same, however the rows are cut."""
    counts = [int(mask.sum()) for mask in masks]
    kept = torch.zeros(sum(counts), dtype=torch.bool, device=masks[0].device)
    kept[Random(0).sample(range(len(kept)), min(SAMPLE, len(kept)))] = True
    return [mask.masked_scatter(mask, part) for mask, part in zip(masks, kept.split(counts), strict=True)]
