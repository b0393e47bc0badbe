"""One arm, trained by transformers' Trainer or by TRL's, with PEFT: a process that knows nothing of deltaw.

python -m training_parts.peer SPECIFICATION.json

Leaves `adapter/` and `found.json` beside the specification: when the first step began and when the last one ended.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)


class Times(TrainerCallback):
    """When the first step began, and when training ended."""

    began = ended = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.began = self.began or time.time()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.ended = time.time()


def main() -> None:
    file = Path(sys.argv[1])
    given = json.loads(file.read_text())
    set_seed(given["arguments"]["seed"])
    tokenizer = AutoTokenizer.from_pretrained(given["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        given["model"], dtype=getattr(torch, given["dtype"]), attn_implementation=given["attention"]
    )
    lora = LoraConfig(task_type="CAUSAL_LM", **given["lora"])
    rows, times = json.loads(Path(given["tokens"]).read_text()), Times()
    if given["library"] == "trl":
        trainer = trl_trainer(model, tokenizer, lora, rows, given["arguments"])
    else:
        start = given["start"]
        adapted = PeftModel.from_pretrained(model, start, is_trainable=True) if start else get_peft_model(model, lora)
        arguments = TrainingArguments(**given["arguments"])
        trainer = Trainer(adapted, arguments, DataCollatorForSeq2Seq(tokenizer), train_dataset=rows)
    same_schedule(trainer, given["warmup_steps"])
    trainer.add_callback(times)
    trainer.train()
    trainer.model.save_pretrained(file.parent / "adapter")
    if trainer.state.epoch != 1:
        sys.exit(f"error: {trainer.state.epoch} epochs were trained, and one was to be")
    (file.parent / "found.json").write_text(json.dumps({"began": times.began, "ended": times.ended}))


def same_schedule(trainer: Any, rise: int) -> None:
    """The learning rate of `train.py`, whose first step has one: transformers' begins at 0, which takes a step away."""
    total = trainer.args.max_steps
    trainer.create_optimizer()
    trainer.lr_scheduler = LambdaLR(
        trainer.optimizer, lambda step: min((step + 1) / rise, (total - step) / max(1, total - rise + 1))
    )


def trl_trainer(model: Any, tokenizer: Any, lora: LoraConfig, rows: list[Any], arguments: dict[str, Any]) -> Any:
    """TRL's, on examples that are tokens already."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    data = Dataset.from_list(rows)
    return SFTTrainer(model, SFTConfig(**arguments), None, data, processing_class=tokenizer, peft_config=lora)


if __name__ == "__main__":
    main()
