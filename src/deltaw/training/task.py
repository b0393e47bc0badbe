"""Several arms that train side by side, as a LightningModule."""

from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from deltaw.lora.arm import Arm
from deltaw.lora.attach import attach
from deltaw.lora.layers import Moment, parameters_of, set_moment
from deltaw.lora.shadows import shadows_of
from deltaw.lora.sharded import gather
from deltaw.model.compiled import compile_layers
from deltaw.model.examples_in_rows import examples_in_rows
from deltaw.model.heads import Initialiser
from deltaw.model.loading import Base
from deltaw.training.build import objective_of, prepare_base
from deltaw.training.engines import shard
from deltaw.training.objectives import Objective, by_row, label_losses
from deltaw.training.optimiser import AdamWPerArm


class LoraArms(LightningModule):
    """A task that every arm trains on rows of its own; the arms share only the products of the frozen base.

    An arm's loss is the sum over its labels (completion tokens, or one label per row) divided by their number in the
    optimiser step, over all processes and micro-batches. Losses are summed over arms, each arm's gradient is clipped
    by itself, and an arm whose gradient is not finite skips the step: nothing of one arm reaches another.

    Args:
        base: the pretrained model, not yet adapted.
        modules: names of its linear layers that get factors.
        arms: what to train.
        heads: modules that each arm trains a copy of, with the function that draws their weights; None keeps the
            base's weights.
        objective: the task.
        warmup: share of all steps over which the learning rate rises, in [0, 1]; then it falls linearly to 0.
        weight_decay: AdamW's, in [0, 1).
        clip: largest norm of an arm's gradient.
        label_smoothing: share of each label that the training loss spreads equally over all classes, in [0, 1).
        max_skipped: number of skipped steps after which an arm stops learning.
        shadows: shadows of each arm of the task.

    Attributes:
        learners: the arms, then their shadows; each has a parameter group of its own.
        skipped: steps that each learner skipped because its gradient was not finite.
        learnt_last: the last step that each learner took.
    """

    base: PreTrainedModel
    step_loss: Tensor
    skipped: Tensor
    learnt_last: Tensor

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
        shadows: int = 0,
    ):
        super().__init__()
        self.strict_loading = False  # a checkpoint holds the arms, not the base
        self.arms, self.modules_adapted, self.heads, self.objective = arms, modules, list(heads), objective
        self.warmup, self.weight_decay, self.clip, self.label_smoothing = warmup, weight_decay, clip, label_smoothing
        self.max_skipped = max_skipped
        self.learners = [*arms, *shadows_of(arms, shadows)]
        attach(base, modules, arms, heads, self.learners[len(arms) :])
        self.base = base
        self.register_buffer("skipped", torch.zeros(len(self.learners), dtype=torch.long))
        self.register_buffer("learnt_last", torch.zeros(len(self.learners), dtype=torch.long), persistent=False)

    def loss_sums(self, batch: dict[str, Tensor]) -> Float[Tensor, " arms"]:
        """Cross-entropy of each arm with smoothed labels, summed over its labels, in nats."""
        losses = label_losses(self.objective, self.base, batch, self.label_smoothing)
        return by_row(batch, losses).view(len(self.arms), -1).sum(1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        place = self.trainer.global_step, micro_batch, self.trainer.global_rank
        set_moment(self.base, Moment(*place, batch.get("signs")))
        with examples_in_rows(packed="position_ids" in batch):
            losses = self.loss_sums(batch) / batch["completion_tokens"]
        self.step_loss = losses.detach() if micro_batch == 0 else self.step_loss + losses.detach()
        # Lightning divides by the micro-batches of a step, and DDP by the processes: undo both.
        return losses.sum() * (self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # the engine shards
            shard(self.base, self.modules_adapted, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            {"params": [weight for weight in parameters_of(self.base, k) if weight.requires_grad], "lr": arm.lr}
            for k, arm in enumerate(self.learners)
        ]
        optimizer = AdamWPerArm(groups, self.weight_decay)
        schedule = LambdaLR(optimizer, lambda step: self._share_of_peak(step))  # LambdaLR saves nothing of a lambda
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_peak(self, step: int) -> float:
        total = self.trainer.max_steps
        rise = max(1, round(self.warmup * total))
        return min((step + 1) / rise, (total - step) / max(1, total - rise + 1))

    def configure_gradient_clipping(self, optimizer: AdamWPerArm, *_: object, **__: object) -> None:  # type: ignore[override]
        norms = [gather(nn.utils.clip_grad_norm_(group["params"], self.clip)) for group in optimizer.param_groups]
        finite = torch.stack(norms).isfinite()
        self.skipped += ~finite
        learns = finite & (self.skipped < self.max_skipped)
        self.learnt_last.masked_fill_(learns, self.trainer.global_step + 1)
        optimizer.sits_out = (~learns).float()

    def state_of_arms(self) -> dict[str, Tensor]:
        """Arms and shadows in a checkpoint, by name: factors (a frozen A too), heads, and counts of skipped steps."""
        of_arms = {parameter for k in range(len(self.learners)) for parameter in parameters_of(self.base, k)}
        weights = {name: parameter for name, parameter in self.named_parameters() if parameter in of_arms}
        return weights | {"skipped": self.skipped}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = self.state_of_arms()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._recount(checkpoint)
        if different := sorted(self.state_of_arms().keys() ^ set(checkpoint["state_dict"])):
            raise RuntimeError(
                f"the checkpoint is of other arms or another base: {len(different)} names differ, {different[:3]}"
            )

    def _recount(self, checkpoint: dict[str, Any]) -> None:
        """Count the steps taken in micro-batches of this process; Lightning counted in those of the stopped run."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counters in (progress["total"], progress["current"]):
            counters.update(dict.fromkeys(("ready", "started", "processed"), done), completed=done - 1)


def task_with_arms(cfg: DictConfig, arms: list[Arm], base: Base) -> tuple[dict[str, str], LoraArms]:
    """Attach the arms to the base.

    Args:
        cfg: the config of the run.
        arms: what to train.
        base: changed in place.

    Returns:
        The projection of each adapted module by the module's name, and the task that trains the arms.

    Raises:
        UserError: the base cannot pack examples, does not give logits for each token, or lacks the projections; or
            model.compile=true finds no compiler.
    """
    modules = prepare_base(cfg, base)
    objective = objective_of(cfg, base, modules)
    optim = {str(key): value for key, value in cfg.optim.items() if key != "lr"}  # each arm has its own lr
    task = LoraArms(base.model, list(modules), arms, base.heads, objective, **optim, shadows=cfg.arms.shadows)
    if cfg.model.compile:
        compile_layers(base.model, modules)
    return modules, task
