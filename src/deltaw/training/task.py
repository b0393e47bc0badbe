"""The training of several arms side by side, as a LightningModule."""

from typing import Any

import torch
from jaxtyping import Float, Int
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from deltaw.lora.arm import Arm
from deltaw.lora.layers import attach, parameters_of, set_moment
from deltaw.lora.sharded import whole
from deltaw.model.heads import Initialiser
from deltaw.training.engines import shard
from deltaw.training.objectives import Objective, summed


class LoraArms(LightningModule):
    """A task with every arm on its own rows; only the frozen base's products are shared.

    An arm's loss is the sum over its labels (completion tokens, or one a row) divided by their number in the whole
    optimiser step, over all ranks and micro-batches. Losses are summed over arms, gradients are clipped arm by arm,
    and an arm whose gradient is not finite sits that step out: nothing of one arm reaches another.

    Args:
        base: the pretrained model, not yet adapted.
        modules: names of its linear layers that take factors.
        arms: what to train.
        heads: modules that each arm trains a copy of, with what draws their weights, or None to keep the base's.
        objective: the task.
        warmup: share of all steps over which the learning rate rises, in [0, 1]; then it falls linearly to 0.
        weight_decay: AdamW's.
        clip: largest norm of an arm's gradient.
        label_smoothing: share of a label that the loss of the training gives to all classes alike, in [0, 1).
        max_skipped: after so many steps that it sat out, an arm learns no more.
    """

    base: PreTrainedModel
    step_loss: Tensor
    skipped: Tensor

    def __init__(
        self,
        base: PreTrainedModel,
        modules: list[str],
        arms: list[Arm],
        heads: dict[str, Initialiser | None],
        objective: Objective,
        warmup: float,
        weight_decay: float,
        clip: float,
        label_smoothing: float,
        max_skipped: int,
    ):
        super().__init__()
        self.strict_loading = False  # a checkpoint holds what the arms have, not the base
        self.arms, self.modules_adapted, self.heads, self.objective = arms, modules, list(heads), objective
        self.warmup, self.weight_decay, self.clip, self.label_smoothing = warmup, weight_decay, clip, label_smoothing
        self.max_skipped = max_skipped
        attach(base, modules, arms, heads)
        self.base = base
        self.register_buffer("skipped", torch.zeros(len(arms), dtype=torch.long))

    def loss_sums(self, batch: dict[str, Tensor]) -> Float[Tensor, " arms"]:
        """Cross-entropy with smoothed labels, summed over each arm's, in nats."""
        logits, targets = self.objective.logits(self.base, batch), self.objective.targets(batch)
        return summed(logits, targets, len(self.arms), self.label_smoothing)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        set_moment(self.base, self.trainer.global_step, micro_batch, self.trainer.global_rank)
        losses = self.loss_sums(batch) / batch["completion_tokens"]
        self.step_loss = losses.detach() if micro_batch == 0 else self.step_loss + losses.detach()
        # Lightning divides by the micro-batches of a step, DDP by the ranks: the sums are normalised already.
        return losses.sum() * (self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def validation_sums(
        self, batch: dict[str, Tensor]
    ) -> tuple[Float[Tensor, " arms"], Int[Tensor, "arms rows tokens"]]:
        """Summed losses of all arms on the same rows, and the class of each label that each predicts.

        `batch` holds the rows once.
        """
        repeated = {name: tensor.repeat(len(self.arms), 1) for name, tensor in batch.items()}
        logits, targets = self.objective.logits(self.base, repeated), self.objective.targets(repeated)
        return summed(logits, targets, len(self.arms)), logits.argmax(-1).unflatten(0, (len(self.arms), -1))

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # of an engine that shards
            shard(self.base, self.modules_adapted, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            {"params": [weight for weight in parameters_of(self.base, k) if weight.requires_grad], "lr": arm.lr}
            for k, arm in enumerate(self.arms)
        ]
        optimizer = AdamW(groups, weight_decay=self.weight_decay)
        schedule = LambdaLR(optimizer, lambda step: self._share_of_peak(step))  # a lambda is not saved
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_peak(self, step: int) -> float:
        total = self.trainer.max_steps
        rise = max(1, round(self.warmup * total))
        return min((step + 1) / rise, (total - step) / max(1, total - rise + 1))

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: object, **__: object) -> None:
        for k, group in enumerate(optimizer.param_groups):
            norm = whole(nn.utils.clip_grad_norm_(group["params"], self.clip))
            finite = norm.isfinite()
            self.skipped[k] += not finite
            if not finite and self.skipped[k] == self.max_skipped:
                rank_zero_warn(
                    f"{self.arms[k].name} stands still from step {self.trainer.global_step} on: its gradients were "
                    f"not finite in optim.max_skipped={self.max_skipped} steps. Other arms go on; try a lower "
                    "learning rate"
                )
            if not finite or self.skipped[k] >= self.max_skipped:
                for weight in group["params"]:  # without gradients AdamW leaves weights and their moments alone
                    weight.grad = None

    def kept(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by name: factors, a frozen A too, heads, and the counts of skipped steps."""
        of_arms = {parameter for k in range(len(self.arms)) for parameter in parameters_of(self.base, k)}
        weights = {name: parameter for name, parameter in self.named_parameters() if parameter in of_arms}
        return weights | {"skipped": self.skipped}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = self.kept()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._recount(checkpoint)
        if odd := sorted(self.kept().keys() ^ set(checkpoint["state_dict"])):
            raise RuntimeError(f"the checkpoint is of other arms or another base: {len(odd)} names differ, {odd[:3]}")

    def _recount(self, checkpoint: dict[str, Any]) -> None:
        """Count the steps taken in today's micro-batches: Lightning counts in those of the run that stopped."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counters in (progress["total"], progress["current"]):
            counters.update(dict.fromkeys(("ready", "started", "processed"), done), completed=done - 1)
