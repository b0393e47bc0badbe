"""Keep the inputs of the adapted modules of the base."""

from functools import partial
from random import Random

import torch
from jaxtyping import Bool
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from deltaw.data.batches import SAMPLE
from deltaw.lora.attach import inputs_of_base
from deltaw.run.writer import RunWriter
from deltaw.training.task import LoraArms


class KeepInputs(Callback):
    """Before the first step, write the inputs of every adapted module of the base at `SAMPLE` tokens.

    An existing file stays. All processes compute the inputs, because each may hold only a part of the base; process 0
    writes them. Training does not notice.

    Args:
        writer: the run directory.
        batches: rows to draw the tokens from, divided in any way. If they have fewer than `SAMPLE` tokens, all are
            kept. For an encoder and a decoder, the tokens are drawn separately.
    """

    def __init__(self, writer: RunWriter, batches: list[dict[str, Tensor]]):
        self.writer, self.batches = writer, batches

    def on_train_start(self, trainer: Trainer, task: LoraArms) -> None:  # type: ignore[override]
        if trainer.strategy.broadcast(self.writer.inputs.exists()):
            return
        batches = [trainer.strategy.batch_to_device(batch) for batch in self.batches]
        sequences = zip(*(task.objective.read(batch) for batch in batches), strict=True)
        chosen = zip(*(choose_tokens(list(masks)) for masks in sequences), strict=True)
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


def choose_tokens(masks: list[Bool[Tensor, "_ _"]]) -> list[Bool[Tensor, "_ _"]]:
    """Masks of `SAMPLE` of the tokens in `masks`, or of all if there are fewer.

    The choice does not depend on how the rows are divided into batches.
    """
    counts = [int(mask.sum()) for mask in masks]
    kept = torch.zeros(sum(counts), dtype=torch.bool, device=masks[0].device)
    kept[Random(0).sample(range(len(kept)), min(SAMPLE, len(kept)))] = True
    return [mask.masked_scatter(mask, part) for mask, part in zip(masks, kept.split(counts), strict=True)]
