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


def test_sentences_say_what_other_arms_take() -> None:
    def row(pair: str, verdict: str, *kept: float) -> dict[str, object]:
        return {"pair": pair, "verdict": verdict, "losses": [{"kept": one} for one in kept]}

    rows = [
        row("calls: turned to other inputs", "apart", 0.95),
        row("numbers: turned to other inputs", "apart", 1.02),
        *(row(f"{task}: turned to other outputs", "shared", 0.9) for task in ("calls", "numbers")),
        *(row(pair, "shared", 0.25, 0.5) for pair in merge.TWO_TASKS),
        row(merge.TWO_SEEDS, "alike", 0.916, 0.889),
        row("random factors", "apart", 0.989),
    ]
    assert merge.sentences({"results": rows}) == (
        "The other arm takes this share of an arm's gain: −2 to 5 % where it was turned to other inputs, 10 to 10 % "
        "where it was turned to other outputs, 50 to 75 % where it learned another task, 8 to 11 % where it has "
        "another seed. Every pair called `apart` kept at least 95 %."
    )


def test_pairs_are_of_the_tasks_that_they_name(tmp_path: Path) -> None:
    arms = [merge.Side(adapter(tmp_path / str(place)).folder, task) for place, (task, _) in enumerate(merge.ARMS)]
    pairs = {name: (left, right) for name, left, right, _ in merge.pairs_of(arms, tmp_path / "made")}
    assert pairs[merge.TWO_SEEDS] == (arms[0], arms[1])
    for name in merge.TWO_TASKS:
        assert name.startswith(f"{pairs[name][0].task}, {pairs[name][1].task}")
    assert {right.task for left, right in pairs.values()} == {"calls", "arguments", "numbers"}
