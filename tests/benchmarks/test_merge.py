"""`benchmarks/merge.py`: the losses of sums, against PEFT's own, and what it makes of a prompt."""

import json
import random
from pathlib import Path

import merge
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from deltaw.config.folder import BUNDLED

ROWS = [("def f(a, b):\n    g(a)\n\ncalls = (", "g)"), ("def h():\n    pass\n\ncalls = (", "none at all)"), ("x", "y")]


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = "".join(json.dumps({"prompt": prompt, "completion": completion}) + "\n" for prompt, completion in ROWS)
    (tmp_path / "calls-validation.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.setattr(merge, "ARMS", (("calls", 0),))
    monkeypatch.setattr(merge, "HELD_OUT", len(ROWS))
    monkeypatch.setattr(merge, "BATCH", 2)
    return tmp_path


def adapter(folder: Path) -> merge.Side:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32), config).save_pretrained(
        str(folder)
    )
    return merge.Side(folder, "calls")


def test_a_sum_has_the_loss_of_its_parts_together(tasks: Path) -> None:
    one = adapter(tasks / "one")
    negative = merge.changed(one, tasks / "minus", lambda name, tensor: -tensor if "lora_B" in name else tensor)
    base = merge.Base(tasks)
    assert base.loss("calls", one) == pytest.approx(peft_loss(one.folder), rel=1e-5)
    assert base.loss("calls", one, negative) == pytest.approx(base.loss("calls"), rel=1e-5)
    assert base.loss("calls", one) != pytest.approx(base.loss("calls"), rel=1e-3)
    assert base.measured(one, negative)["kept"] == pytest.approx(0, abs=1e-3)


def peft_loss(folder: Path) -> float:
    """One example after another, by PEFT's model."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32), folder).eval()
    losses = []
    for texts in ROWS:
        prompt, completion = (tokenizer(text).input_ids for text in texts)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(completion), reduction="none"))
    return float(torch.cat(losses).mean())


def test_the_other_tasks_have_right_answers() -> None:
    assert merge.arguments_of("def f(a, /, b=1, *c, d, **e):\n    g(a)\n\ncalls = (") == ["a", "b", "d"]
    row = merge.reversed_numbers(random.Random(0))
    given, answer = (row["prompt"].removeprefix("numbers: ").partition("\n")[0], row["completion"].strip())
    assert answer.split(", ") == given.split(", ")[::-1] and 3 <= len(answer.split(", ")) <= 8
