"""The validation loss of PEFT folders, by one plain loop for all sides.

python -m training_parts.validation TASK.json    {"model", "dtype", "mixed", "tokens", "folders", "out"}
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

ROWS = 16  # of a batch


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    rows = sorted(json.loads(Path(task["tokens"]).read_text()), key=lambda row: len(row["input_ids"]))
    base = AutoModelForCausalLM.from_pretrained(task["model"], dtype=getattr(torch, task["dtype"]))
    model, found = None, {}
    for folder in task["folders"]:
        model = model or PeftModel.from_pretrained(base, folder, adapter_name=folder.replace(".", "_"))
        found[folder] = {"loss": loss_of(load(model, folder), rows, task["mixed"]), "moved": moved(model)}
    Path(task["out"]).write_text(json.dumps(found, indent=2))


def load(model: Any, folder: str) -> Any:
    """The model with the adapter of `folder` at work, and no other in memory."""
    name = folder.replace(".", "_")
    if name not in model.peft_config:
        model.load_adapter(folder, name)
    model.set_adapter(name)
    for other in [other for other in model.peft_config if other != name]:
        model.delete_adapter(other)
    return model.eval()


def moved(model: Any) -> bool:
    """Whether every B, which starts at zero, has learned something."""
    return all(bool(weight.any()) for name, weight in model.named_parameters() if "lora_B" in name)


@torch.no_grad()
def loss_of(model: Any, rows: list[dict[str, list[int]]], mixed: bool) -> float:
    """Cross-entropy over all labels of all rows, in nats a token."""
    total = count = 0.0
    for at in range(0, len(rows), ROWS):
        batch = rows[at : at + ROWS]
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch])
        labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):  # padding is at the end: a causal mask hides it
            logits = model(input_ids=ids).logits[:, :-1].float()
        total += float(cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"))
        count += int((labels[:, 1:] != -100).sum())
    return total / count


if __name__ == "__main__":
    main()
