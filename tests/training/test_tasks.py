"""Each task trains on a tiny base of the kind that it needs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from deltaw.errors import UserError
from deltaw.training.callbacks.record_losses import RecordLosses
from deltaw.training.task import LoraArms
from tests.support.runs import assert_equal_metrics, assert_same_run, at_step
from tests.support.tiny import (
    ROOT,
    factors,
    largest_difference,
    make_bart,
    make_base,
    make_bert,
    make_labelled,
    make_pairs,
    make_t5,
    metrics,
    overrides,
    run,
)

BASES = {"llama": make_base, "bert": make_bert, "t5": make_t5, "bart": make_bart}
ARMS = ["r2-s0", "r6-s0"]
CLASSES = ["task=classification", "run.name=classes"]
CONTROLS = ["arms.ranks=[6]", "arms.controls=[shuffled,random,frozen_a]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, make in BASES.items():
        make(folder / name)
    make_labelled(folder / "labelled.jsonl")
    make_pairs(folder / "pairs.jsonl")
    return folder


def of(folder: Path, base: str, *more: str) -> list[str]:
    labelled = "task=classification" in more
    data = f"data.path={folder / ('labelled.jsonl' if labelled else 'pairs.jsonl')}"
    return [f"model.path={folder / base}", data, *more]


@pytest.fixture(scope="module")
def classes(folder: Path) -> Path:
    """Two arms of a classification in company, never interrupted."""
    return run(folder, *of(folder, "bert", *CLASSES))


@pytest.mark.parametrize(
    ("task", "base"),
    [("classification", "bert"), ("classification", "llama"), ("seq2seq", "t5"), ("seq2seq", "bart")],
)
def test_an_arm_in_company_equals_the_arm_alone(folder: Path, task: str, base: str) -> None:
    given = of(folder, base, f"task={task}", "trainer.max_steps=10")
    both = run(folder, *given, f"run.name={task}-{base}", "data.micro_batch=2")
    alone = run(folder, *given, "arms.ranks=[6]", f"run.name={task}-{base}-alone")
    assert largest_difference(factors(both, "r6-s0", 10), factors(alone, "r6-s0", 10)) <= 1e-10
    assert largest_difference(factors(both, "r6-s0", 10), factors(both, "r6-s0", 0)) > 1e-3
    left, right = ([line for line in metrics(path) if ",r6-s0,val/" in line] for path in (both, alone))
    assert left and [line.rpartition(",")[0] for line in left] == [line.rpartition(",")[0] for line in right]


def test_a_classification_is_learnt(folder: Path) -> None:
    given = of(folder, "bert", "task=classification", "optim.lr=2e-2", "trainer.max_steps=40")
    trained = run(folder, *given, "arms.ranks=[6]", "run.name=learnt")
    losses = [float(line.rpartition(",")[2]) for line in metrics(trained) if ",train/loss," in line]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_each_arm_has_a_head_from_a_seed_of_its_own_and_trains_it(classes: Path) -> None:
    record = json.loads((classes / "run.json").read_text())
    seeds = [arm["head_seed"] for arm in record["arms"] if "head_seed" in arm]  # a shadow has no head
    assert len(set(seeds)) == 2 and record["heads"].keys() == {"classifier", "bert.pooler"}
    for name in ("classifier", "bert.pooler.dense"):
        key = f"base_model.model.{name}.weight"
        starts = [factors(classes, arm, 0)[key] for arm in ARMS]
        ends = [factors(classes, arm)[key] for arm in ARMS]
        assert not torch.allclose(starts[0], starts[1])
        assert all(not torch.equal(start, end) for start, end in zip(starts, ends, strict=True))


def test_every_arm_starts_from_the_head_of_the_checkpoint(folder: Path) -> None:
    torch.manual_seed(1)
    trained = AutoModelForSequenceClassification.from_pretrained(folder / "bert", num_labels=3)
    trained.save_pretrained(folder / "trained")
    for file in (folder / "bert").glob("tokenizer*"):
        (folder / "trained" / file.name).write_bytes(file.read_bytes())
    kept = run(folder, *of(folder, "trained", "task=classification", "run.name=kept", "trainer.max_steps=1"))
    for arm in ARMS:
        start = factors(kept, arm, 0)
        torch.testing.assert_close(start["base_model.model.classifier.weight"], trained.classifier.weight.data.double())
        assert not any("pooler" in name for name in start)  # the checkpoint has it: it belongs to the base
    assert not any("head_seed" in arm for arm in json.loads((kept / "run.json").read_text())["arms"])
    other = run(folder, *of(folder, "trained", "task=classification", "model.labels=4", "run.name=other-labels"))
    assert factors(other, "r2-s0", 0)["base_model.model.classifier.weight"].shape == (4, 32)


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_a_snapshot_of_a_classifier_loaded_by_peft_gives_the_logits_of_its_arm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    ids = torch.tensor([[50, 60, 70, 80], [90, 40, 1, 1]]) if base == "bert" else torch.tensor([[50, 60, 70, 80]])
    given = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    seen: dict[str, torch.Tensor] = {}
    original = RecordLosses._validate

    def validate(self: RecordLosses, trainer: object, task: LoraArms) -> None:
        with torch.no_grad():
            logits = task.base(**{name: value.repeat(2, 1) for name, value in given.items()}).logits
        seen.update(zip(ARMS, logits.chunk(2), strict=True))
        original(self, trainer, task)  # type: ignore[arg-type]

    monkeypatch.setattr(RecordLosses, "_validate", validate)
    run(folder, *of(folder, base, "task=classification", f"run.name=peft-{base}"))
    for arm, logits in seen.items():
        plain = AutoModelForSequenceClassification.from_pretrained(folder / base, num_labels=3, dtype=torch.float64)
        plain.config.pad_token_id = 1 if base == "bert" else 0
        snapshot = folder / "runs" / f"peft-{base}" / "snapshots" / arm / "step-00000020"
        model = PeftModel.from_pretrained(plain, snapshot, autocast_adapter_dtype=False).eval()
        torch.testing.assert_close(model(**given).logits, logits)


def test_a_stopped_classification_resumes_to_the_bit(
    folder: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = of(folder, "bert", "task=classification", "run.name=classes-stopped")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *given)
    assert_same_run(run(folder, *given), classes)
    left, right = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
        for path in (classes, folder / "runs" / "classes-stopped")
    )
    assert all(torch.equal(left[n][name], right[n][name]) for n in left for name in ("exp_avg", "exp_avg_sq"))


@pytest.mark.ddp
def test_two_processes_train_the_same_classifiers_as_one(folder: Path, classes: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *overrides(folder, *of(folder, "bert", "task=classification", "run.name=two", "trainer.devices=2")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    two = folder / "runs" / "two"
    assert max(largest_difference(factors(classes, arm), factors(two, arm)) for arm in ARMS) <= 1e-10
    assert_equal_metrics(two, classes)


@pytest.mark.parametrize(("task", "base"), [("classification", "bert"), ("seq2seq", "t5")])
def test_controls_train_and_are_validated_on_the_true_pairs(folder: Path, task: str, base: str) -> None:
    name = f"run.name=controls-{task}"
    controls = run(folder, *of(folder, base, f"task={task}", *CONTROLS, name, "trainer.max_steps=5"))
    first = {line.split(",")[1]: line for line in metrics(controls) if line.startswith("1,") and "train/loss" in line}
    losses = {arm: float(line.rpartition(",")[2]) for arm, line in first.items()}
    assert losses.keys() == {"r6-s0", "r6-s0-shuffled", "r6-s0-random", "r6-s0-frozen_a"}
    assert len({round(loss, 9) for loss in losses.values()}) == (3 if task == "seq2seq" else 4)  # heads differ
    frozen = [factors(controls, "r6-s0-frozen_a", step) for step in (0, 5)]
    moved = {name for name in frozen[0] if not torch.equal(frozen[0][name], frozen[1][name])}
    assert moved == {name for name in frozen[0] if "lora_A" not in name}


@pytest.mark.parametrize("setting", ["model.dtype=bfloat16", "trainer.precision=bf16-mixed"])
def test_a_head_on_a_base_in_bfloat16_is_float32(folder: Path, setting: str) -> None:
    name = "run.name=bf16-" + setting.partition("=")[0]
    given = of(folder, "bert", "task=classification", "trainer.precision=32-true", "trainer.max_steps=2", name, setting)
    trained = run(folder, *given, "model.gradient_checkpointing=true")
    assert {tensor.dtype for tensor in factors(trained, "r6-s0", 2).values()} == {torch.float32}


def test_a_run_records_what_it_held_out_by_group_and_from_a_file(folder: Path) -> None:
    rows = [{"prompt": f"add {n}", "completion": f"close {n}", "author": n % 5} for n in range(30)]
    for name, some in {"grouped": rows[:20], "own": rows[20:]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    given = of(folder, "llama", f"data.path={folder / 'grouped.jsonl'}", f"data.validation_path={folder / 'own.jsonl'}")
    small = ["data.validation=2", "data.judged=2", "trainer.max_steps=2", "data.packing=true"]
    trained = run(folder, *given, "data.group=author", "run.name=grouped", *small)
    data = json.loads((trained / "run.json").read_text())["data"]
    assert (data["group"], data["validation_path"]) == ("author", str(folder / "own.jsonl"))
    counts = [data[name] for name in ("rows", "learnt", "validation", "judged", "left_out")]
    assert counts == [30, 12, 2, 2, 8]  # a group is 4 rows to learn and 2 in the file
    examples = pd.read_parquet(trained / "evaluation.parquet").groupby("split").example.agg(["nunique", "min"])
    assert examples["nunique"].to_dict() == {"validation": 2, "judged": 2} and (examples["min"] >= 20).all()
    with pytest.raises(UserError, match=r"data.group is author there and None here"):
        run(folder, *given, "run.name=grouped", *small)


@pytest.mark.parametrize(
    ("base", "override", "words"),
    [
        ("llama", "data.validation_split=test", "data=jsonl does not read data.validation_split: give data=hub"),
        ("llama", "data.validation_path=none.jsonl", "none.jsonl could not be read (No such file or directory)"),
        ("llama", "data.group=author", "and none for data.group=author: give one of them"),
        ("bert", "task=regression", "task=regression: give one of causal, seq2seq, classification"),
        ("bert", "model.labels=3", "model.labels=3 needs task=classification"),
        ("bert", "task=classification model.labels=2", "3 labels, among them '2', and model.labels=2"),
        ("llama", "task=seq2seq", "llama could not be loaded"),
        ("llama", "task=classification data.path={folder}/pairs.jsonl", "task=classification reads 'text' and 'label'"),
        ("bert", "data.eos=false", "looks ahead, so that task=causal would teach it to copy"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(folder: Path, base: str, override: str, words: str) -> None:
    given = override.format(folder=folder).split(" ")
    with pytest.raises(UserError) as error:
        run(folder, *of(folder, base, *given), *given, "run.name=refused")
    assert words in " ".join(str(error.value).split())
    assert not (folder / "runs" / "refused").exists()
