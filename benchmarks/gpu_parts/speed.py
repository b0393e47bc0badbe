"""Tokens per second, peak memory and MFU: one arm, two, two with shadows; beside Hugging Face's Trainer with PEFT.

Rows have one length and every token is learnt, so at its best that Trainer differs from its defaults in Liger's
kernels, where `liger-kernel` is installed, in workers that make batches ahead, and in what it need not log. SDPA and
fused AdamW are its defaults.
"""

import itertools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from peft import LoraConfig, get_peft_model
from results_file import Results
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from deltaw.lora.layers import parameters_of
from deltaw.plan.forecast import hardware_of, workload_of
from deltaw.plan.suggestion import Setup
from deltaw.plan.workload import RowCost
from deltaw.training.build import arms_of
from gpu_parts.sizes import Shape, Sizes
from gpu_parts.workload import Clock, RandomText, free, product_flops, random_base, random_llama, run_on, train_arms

OURS, THEIRS, THEIR_BEST = "deltaw", "transformers Trainer + PEFT", "transformers Trainer + PEFT, at its best"
LIGER = find_spec("liger_kernel") is not None
AT_BEST: dict[str, Any] = {
    "use_liger_kernel": LIGER,
    "dataloader_num_workers": 2,
    "logging_strategy": "no",
    "report_to": "none",
}


def run(out: Path, sizes: Sizes) -> None:
    """Every shape and length, the largest first: of a run that is cut off, these matter most."""
    product = product_flops(sizes)
    results = Results(out / "speed.json", product_tflops=product / 1e12, batch_tokens=sizes.batch_tokens, liger=LIGER)
    low, high = sizes.ranks
    both_ranks = [(OURS, [low, high], shadows) for shadows in (0, 1)]
    cases = [*both_ranks, (THEIR_BEST, [high], 0), (THEIRS, [high], 0), (OURS, [high], 0)]
    for (name, shape), tokens in itertools.product(reversed(list(sizes.shapes.items())), reversed(sizes.tokens)):
        rows, what = sizes.batch_tokens // tokens, {"base": name, "tokens": tokens}
        with results.measuring(**what):
            one, (both, fits) = counted(sizes, shape, tokens, [high])[0], counted(sizes, shape, tokens, [low, high])
            for by, ranks, shadows in cases:
                case = {**what, "by": by, "ranks": ranks, "shadows": shadows, "checkpointing": not fits}
                with results.measuring(**case):
                    settings = [
                        f"arms.ranks={ranks}",
                        f"arms.shadows={shadows}",
                        f"model.gradient_checkpointing={not fits}",
                    ]
                    settings += [f"data.batch={rows}", f"trainer.max_steps={sizes.warmup + sizes.steps}"]
                    with run_on(sizes, shape, tokens, *settings) as cfg:
                        clock = Clock(sizes)
                        moved = ours(cfg, shape, clock) if by == OURS else theirs(cfg, shape, clock, by == THEIR_BEST)
                    flops = rows * (both if len(ranks) == 2 else one).step_flops(checkpointing=False)
                    results.add(**case, **rates(clock, sizes, len(ranks), flops, product), weights_moved=moved)
                free(sizes.device)


def counted(sizes: Sizes, shape: Shape, tokens: int, ranks: list[int]) -> tuple[RowCost, bool]:
    """The planned cost of one row of each arm without shadows, and whether a step fits without gradient checkpointing.

    The arithmetic of a single arm hardly depends on its rank: it is counted once.
    """
    with run_on(sizes, shape, tokens, f"arms.ranks={ranks}", "arms.shadows=0") as cfg:
        setup = Setup(workload_of(cfg, arms_of(cfg)), hardware_of(cfg, devices=1, nodes=1), checkpointing=False)
    return setup.workload.row, setup.fits("single", sizes.batch_tokens // tokens)


def rates(clock: Clock, sizes: Sizes, arms: int, flops: float, product: float) -> dict[str, float | None]:
    """What a step's seconds mean. Layers that are computed again count as no work in `flops`, nor in MFU."""
    return {
        "step_s": clock.seconds,
        "tokens_per_s": sizes.batch_tokens * arms / clock.seconds,
        "peak_gib": clock.peak_gib,
        "tflops": flops / clock.seconds / 1e12,
        "mfu": flops / clock.seconds / product,
    }


def ours(cfg: DictConfig, shape: Shape, clock: Clock) -> bool:
    """Train the arms of `cfg` side by side; returns whether all their B moved."""
    base = random_base(shape, clock.sizes.device, cfg.model.gradient_checkpointing)
    task = train_arms(cfg, base, clock.step_ended)
    return all(bool(B.any()) for k in range(len(task.arms)) for B in parameters_of(task.base, k)[1::2])


def theirs(cfg: DictConfig, shape: Shape, clock: Clock, at_best: bool) -> bool:
    """Train the one arm of `cfg` by Hugging Face's Trainer and PEFT; returns whether all its B moved."""
    (arm,), on_gpu = arms_of(cfg), clock.sizes.device == "cuda"
    lora = LoraConfig(r=arm.rank, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(random_llama(shape, clock.sizes.device), lora)
    rows = [torch.tensor(row) for row in RandomText(shape["vocab_size"], cfg.data.max_length).rows]
    arguments = TrainingArguments(
        output_dir=cfg.run.dir,
        max_steps=cfg.trainer.max_steps,
        per_device_train_batch_size=cfg.data.batch,
        learning_rate=arm.lr,
        bf16=True,
        gradient_checkpointing=cfg.model.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        save_strategy="no",  # its last act would be a checkpoint behind the steps
        **(AT_BEST if at_best else {}),
    )
    data = [{"input_ids": row, "labels": row} for row in rows]
    Trainer(model, arguments, train_dataset=data, callbacks=[Steps(clock.step_ended)]).train()
    return all(bool(weight.any()) for name, weight in model.named_parameters() if "lora_B" in name)


class Steps(TrainerCallback):
    """Tell someone of each step of Hugging Face's Trainer as it ends.

    Args:
        step_ended: called with its number, from 1.
    """

    def __init__(self, step_ended: Callable[[int], None]):
        self.step_ended = step_ended

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.step_ended(state.global_step)
