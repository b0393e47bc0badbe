import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

import deltaw.commands.train as commands_train
from deltaw.data.batches import StepBatches
from deltaw.lora.arms import arms_from
from deltaw.lora.layers import ArmsLinear
from deltaw.model.rms_norm import shorten_derivatives
from deltaw.run.directory import RunDirectory
from deltaw.training import validation
from deltaw.training.build import arms_of
from deltaw.training.callbacks.record_losses import RecordLosses
from deltaw.training.task import LoraArms
from tests.support.runs import assert_equal_metrics, assert_same_run, at_step
from tests.support.tiny import ROOT, factors, largest_difference, learnt, metrics, overrides, run

FOUR = ["arms.ranks=[2,6]", "arms.seeds=[0,1]", "run.name=four"]
ARMS = ["r2-s0", "r6-s0", "r2-s1", "r6-s1"]
DROPPED = [*FOUR[:2], "run.name=dropped", "arms.dropout=0.1", "optim.label_smoothing=0.1", "data.micro_batch=2"]
CONTROLS = ["arms.ranks=[6]", "arms.seeds=[0,1]", "arms.controls=[shuffled,random,frozen_a]"]
CONTROLS += ["data.judged=6", "truncate=[2]"]


@pytest.fixture(scope="module")
def four(folder: Path) -> Path:
    """Four arms in company, never interrupted."""
    return run(folder, *FOUR)


@pytest.fixture(scope="module")
def dropped(folder: Path) -> Path:
    """The four arms with dropout and smoothed labels, in two micro-batches per step."""
    return run(folder, *DROPPED)


@pytest.fixture(scope="module")
def controls(folder: Path) -> Path:
    """One rank with two seeds, each with all its controls, in company."""
    return run(folder, *CONTROLS, "run.name=controls")


PATTERNS = "{layers.0.self_attn.q_proj:3,v_proj:4}"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("patterns", ["", f",rank_pattern:{PATTERNS},alpha_pattern:{PATTERNS}"], ids=["", "patterns"])
def test_an_arm_equals_a_plain_training_loop_over_peft(folder: Path, patterns: str, smoothing: float) -> None:
    """AdamW on PEFT's layers from the same start; loss and schedule are written out, and nothing is clipped."""
    ours = run(
        folder,
        "arms.ranks=null",
        f"arms.list=[{{rank:6,name:r6-s0{patterns}}}]",
        f"run.name=ours-{smoothing}-{len(patterns)}",
        "optim.clip=1e9",
        "optim.warmup=0.25",
        "optim.weight_decay=0.1",
        f"optim.label_smoothing={smoothing}",
    )
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    shorten_derivatives(base.requires_grad_(False))  # else float32 inside the norms would round in two ways
    start = ours / "snapshots" / "r6-s0" / "step-00000000"
    model = PeftModel.from_pretrained(base, start, is_trainable=True, autocast_adapter_dtype=False)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    steps = StepBatches(learnt(folder), arms_from([6], [0], None, [], 16.0, "alpha/r", 2e-3), 4, 4, 20, 0, 1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.1)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 2e-3 * min((step + 1) / 5, (20 - step) / 16)
        total, count = torch.zeros((), dtype=torch.float64), 0
        for number in steps.drawn(0, step)[0].tolist():
            pair = pairs[steps.examples.chosen[number]]
            prompt = tokenizer(pair["prompt"])["input_ids"]
            completion = [*tokenizer(pair["completion"])["input_ids"], tokenizer.eos_token_id]
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            labels = torch.tensor(completion)
            total = total + cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
            count += len(completion)
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    reference = {name: tensor.detach() for name, tensor in get_peft_model_state_dict(model).items()}
    assert largest_difference(factors(ours, "r6-s0"), reference) <= 1e-9


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_in_company_equals_the_arm_alone(folder: Path, four: Path, arm: str) -> None:
    rank, seed = arm.removeprefix("r").split("-s")
    alone = run(folder, f"arms.ranks=[{rank}]", f"arms.seeds=[{seed}]")
    assert largest_difference(factors(four, arm), factors(alone, arm)) <= 1e-10
    assert largest_difference(factors(four, arm), factors(four, arm, 0)) > 1e-3  # it did train


@pytest.mark.parametrize("checkpointing", ["false", "true"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_an_arm_beside_its_shadows_equals_the_arm_without_to_the_bit(
    folder: Path, precision: str, checkpointing: str
) -> None:
    """With dropout, which the shadows share, and with two micro-batches."""
    settings = [*DROPPED, f"trainer.precision={precision}", f"model.gradient_checkpointing={checkpointing}"]
    runs = [
        run(folder, *settings, f"arms.shadows={shadows}", f"run.name=s{shadows}-{precision}-{checkpointing}")
        for shadows in (0, 2)
    ]
    for arm in ARMS:
        assert largest_difference(*(factors(one, arm) for one in runs)) == 0
        for shadow in (f"{arm}-shadow1", f"{arm}-shadow2"):
            moved = largest_difference(factors(runs[1], shadow), factors(runs[1], shadow, 0))
            assert 0.1 < moved / largest_difference(factors(runs[1], arm), factors(runs[1], arm, 0)) < 10
    assert metrics(runs[0]) == metrics(runs[1])  # no shadow has a loss


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_with_dropout_in_company_equals_the_arm_alone(folder: Path, four: Path, dropped: Path, arm: str) -> None:
    rank, seed = arm.removeprefix("r").split("-s")
    alone = run(folder, *DROPPED[3:], f"arms.ranks=[{rank}]", f"arms.seeds=[{seed}]", f"run.name=dropped-{arm}")
    assert largest_difference(factors(dropped, arm), factors(alone, arm)) <= 1e-10
    assert largest_difference(factors(dropped, arm), factors(four, arm)) > 1e-3
    config = json.loads((dropped / "snapshots" / arm / "step-00000020" / "adapter_config.json").read_text())
    record = json.loads((dropped / "run.json").read_text())
    assert config["lora_dropout"] == record["arms"][ARMS.index(arm)]["dropout"] == 0.1


def test_an_arm_with_dropout_equals_the_arm_alone_where_nobody_says_how_examples_lie_in_rows(folder: Path) -> None:
    settings = ["arms.ranks=[2]", "arms.dropout=0.1", "data.batch=8", "data.micro_batch=null", "trainer.max_steps=5"]
    company = run(folder, *settings, "arms.seeds=[0,1]", "run.name=default-company")
    for seed in (0, 1):
        alone = run(folder, *settings, f"arms.seeds=[{seed}]", f"run.name=default-s{seed}")
        arm = f"r2-s{seed}"
        assert largest_difference(factors(company, arm, 5), factors(alone, arm, 5)) <= 1e-10


def test_gradient_checkpointing_repeats_the_dropout_masks(folder: Path, dropped: Path) -> None:
    thrifty = run(folder, *DROPPED, "run.name=dropped-thrifty", "model.gradient_checkpointing=true")
    assert max(largest_difference(factors(dropped, arm), factors(thrifty, arm)) for arm in ARMS) <= 1e-10
    assert_equal_metrics(thrifty, dropped)


def test_a_run_with_dropout_resumes_to_the_bit(folder: Path, dropped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *DROPPED, "run.name=dropped-stopped")
    assert_same_run(run(folder, *DROPPED, "run.name=dropped-stopped"), dropped)


def test_validation_has_neither_dropout_nor_smoothed_labels(folder: Path, dropped: Path) -> None:
    """PEFT loads the arms from their snapshots, and torch computes the loss."""
    examples = learnt(folder)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, dropped / "snapshots/r6-s0/step-00000020", autocast_adapter_dtype=False)
    losses, rights = [], []
    held = sorted(set(range(len(examples.corpus))) - set(examples.chosen.tolist()))
    for row in (examples.corpus[number] for number in held):
        logits = model(torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(row.completion), reduction="none"))
        rights.append(int((logits.argmax(-1) == torch.tensor(row.completion)).sum()))
    (last,) = [line for line in metrics(dropped) if line.startswith("20,r6-s0,val/loss")]
    assert float(last.rpartition(",")[2]) == pytest.approx(torch.cat(losses).mean().item(), abs=1e-9)
    each = RunDirectory(dropped).evaluation().query("arm == 'r6-s0' and step == 20")
    assert each.loss.tolist() == pytest.approx([loss.sum().item() for loss in losses], abs=1e-9)
    assert (each.example.tolist(), each.labels.tolist()) == (held, [len(loss) for loss in losses])
    assert each.right.tolist() == rights


def test_micro_batches_do_not_change_a_step(folder: Path, four: Path) -> None:
    cut = run(folder, *FOUR, "run.name=cut", "data.micro_batch=1")
    assert max(largest_difference(factors(four, arm), factors(cut, arm)) for arm in ARMS) <= 1e-10
    assert_equal_metrics(cut, four)
    assert sorted(path.name for path in (cut / "snapshots" / "r2-s0").iterdir()) == [
        f"step-{step:08d}" for step in (0, 5, 10, 15, 20)
    ]


@pytest.mark.ddp
def test_two_processes_train_the_same_arms_as_one(folder: Path, controls: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *overrides(folder, *CONTROLS, "run.name=two", "trainer.devices=2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    two = folder / "runs" / "two"
    arms = [path.name for path in (controls / "snapshots").iterdir()]
    assert len(arms) == 10  # two of them are shadows
    assert max(largest_difference(factors(controls, arm), factors(two, arm)) for arm in arms) <= 1e-10
    assert_equal_metrics(two, controls)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", random.Random(0).sample(range(1, 20), 2))
def test_a_run_that_a_signal_stops_resumes_to_the_bit(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: int
) -> None:
    name = f"run.name=stopped-{number}-{step}"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        at_step(step, lambda: os.kill(os.getpid(), number), patch)
        run(folder, *FOUR, name)
    assert stopped.value.code == 128 + number
    assert_same_run(run(folder, *FOUR, name), four)


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4), (4, 2)])
def test_a_stopped_run_resumes_with_other_micro_batches(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    name = f"run.name=cut-{before}-{after}"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *FOUR, name, f"data.micro_batch={before}")
    resumed = run(folder, *FOUR, name, f"data.micro_batch={after}")
    assert max(largest_difference(factors(four, arm), factors(resumed, arm)) for arm in ARMS) <= 1e-10
    assert_equal_metrics(resumed, four)


def test_a_stopped_run_resumes_with_other_distances_of_snapshots_and_records(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *FOUR, "run.name=thinned")
    thinner = ["snapshots.every=8", "metrics.every=3", "metrics.validate_every=4", "timeout=60"]
    resumed = RunDirectory(run(folder, *FOUR, "run.name=thinned", *thinner))
    assert max(largest_difference(factors(four, arm), factors(resumed.path, arm)) for arm in ARMS) == 0
    assert resumed.steps(ARMS[0]) == [0, 5, 8, 16, 20]
    assert sorted(set(resumed.evaluation().step)) == [0, 8, 12, 16, 20]  # 7 was left, and is not due any more


@pytest.mark.parametrize("step", [0, 5, 10])
def test_a_signal_during_a_validation_leaves_it_and_the_run_goes_on_with_it(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    original, seen = validation.losses_and_classes, list[int]()

    def stop(task: LoraArms, batch: dict[str, torch.Tensor], arms: int) -> tuple[torch.Tensor, torch.Tensor]:
        if task.trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(task.trainer.global_step)
        return original(task, batch, arms)

    settings = [*FOUR, f"run.name=left-{step}", "metrics.validate_every=5", "snapshots.every=10"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(validation, "losses_and_classes", stop)
        run(folder, *settings)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert seen.count(step) == 1 and max(seen) == step  # of several batches, and no step after it
    whole = run(folder, *FOUR, "run.name=whole", "metrics.validate_every=5", "snapshots.every=10")
    resumed = run(folder, *settings)
    assert metrics(resumed) == metrics(whole)
    assert all(largest_difference(factors(resumed, arm), factors(four, arm)) == 0 for arm in ARMS)
    each, other = (RunDirectory(one).evaluation() for one in (resumed, whole))
    pd.testing.assert_frame_equal(each, other, check_exact=True)


def test_a_run_that_crashed_resumes_from_its_last_checkpoint(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        at_step(13, crash, patch)
        run(folder, *FOUR, "run.name=crashed")
    written = folder / "runs" / "crashed" / "snapshots" / "r2-s0" / "step-00000000" / "adapter_model.safetensors"
    before = written.stat().st_mtime_ns
    assert_same_run(run(folder, *FOUR, "run.name=crashed"), four)
    assert written.stat().st_mtime_ns == before  # the start is never written twice


def test_a_nan_in_one_arm_leaves_the_others_untouched(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = LoraArms.loss_sums, iter(range(1000))

    def loss_sums(self: LoraArms, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        losses = original(self, batch)
        return losses * torch.tensor([torch.nan, 1, 1, 1]) if self.training and next(calls) == 9 else losses

    with monkeypatch.context() as patch:
        patch.setattr(LoraArms, "loss_sums", loss_sums)
        hurt = run(folder, *FOUR, "run.name=nan")
    assert [largest_difference(factors(hurt, arm), factors(four, arm)) for arm in ARMS[1:]] == [0, 0, 0]
    assert 0 < largest_difference(factors(hurt, "r2-s0"), factors(four, "r2-s0")) < 1
    assert "20,r2-s0,train/skipped,1.0" in metrics(hurt)


def test_a_snapshot_loaded_by_peft_gives_the_logits_of_its_arm(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, torch.Tensor] = {}
    original = RecordLosses._validate
    text = AutoTokenizer.from_pretrained(folder / "base")("add close find", return_tensors="pt")["input_ids"]

    def validate(self: RecordLosses, trainer: object, task: LoraArms) -> None:
        with torch.no_grad():
            logits = task.base(input_ids=text.repeat(len(ARMS), 1)).logits
        seen.update(zip(ARMS, logits, strict=True))
        original(self, trainer, task)  # type: ignore[arg-type]

    monkeypatch.setattr(RecordLosses, "_validate", validate)
    scaled = run(folder, *FOUR, "run.name=scaled", "arms.scaling=rslora")
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    for arm in ARMS:
        folder_of_arm = scaled / "snapshots" / arm / "step-00000020"
        model = PeftModel.from_pretrained(base, folder_of_arm, autocast_adapter_dtype=False)
        torch.testing.assert_close(model(text).logits[0], seen[arm])
        base = model.unload()


@pytest.mark.parametrize("setting", ["trainer.precision=bf16-mixed", "model.dtype=bfloat16"])
def test_a_base_in_bfloat16_leaves_float32_factors(folder: Path, setting: str) -> None:
    name = "run.name=" + setting.partition("=")[0]
    plain = run(folder, "trainer.precision=32-true", "run.name=plain32", "trainer.max_steps=5")
    changed = run(folder, "trainer.precision=32-true", "trainer.max_steps=5", name, setting)
    tensors = factors(changed, "r6-s0", 5)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert 0 < largest_difference(tensors, factors(plain, "r6-s0", 5)) < 0.02


def test_gradient_checkpointing_runs_layers_twice_and_changes_only_rounding(
    folder: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = ArmsLinear.forward, Counter[str]()

    def forward(self: ArmsLinear, x: torch.Tensor) -> torch.Tensor:
        calls["training" if self.training else "validation"] += 1
        return original(self, x)

    monkeypatch.setattr(ArmsLinear, "forward", forward)
    thrifty = run(folder, *FOUR, "run.name=thrifty", "model.gradient_checkpointing=true")
    assert calls["training"] == 2 * 20 * 6  # each of six sites, forward and again for backward, in 20 steps
    # Not to the bit: with it the last layer computes all tokens to its end, and larger products may round otherwise.
    assert max(largest_difference(factors(four, arm), factors(thrifty, arm)) for arm in ARMS) <= 1e-10


@pytest.mark.parametrize("control", ["shuffled", "random", "frozen_a"])
def test_a_control_differs_from_its_arm_and_equals_itself_alone(
    folder: Path, controls: Path, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    name = f"r6-s0-{control}"
    for step in (0, 20):
        assert largest_difference(factors(controls, "r6-s0", step), factors(controls, name, step)) > 0.01
    monkeypatch.setattr(commands_train, "arms_of", lambda cfg: [arm for arm in arms_of(cfg) if arm.name == name])
    alone = run(folder, "arms.ranks=[6]", f"arms.controls=[{control}]", "data.judged=6", f"run.name=alone-{control}")
    assert [path.name for path in (alone / "snapshots").iterdir()] == [name]
    assert largest_difference(factors(controls, name), factors(alone, name)) <= 1e-10


def test_a_frozen_a_stays_at_its_start_and_its_b_alone_is_in_the_optimiser(controls: Path) -> None:
    start, end = (factors(controls, "r6-s0-frozen_a", step) for step in (0, 20))
    moved = {name: not torch.equal(start[name], end[name]) for name in start}
    assert moved == {name: "lora_B" in name for name in start}
    optimizer = torch.load(controls / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    sizes = [len(group["params"]) for group in optimizer["param_groups"]]
    assert sizes == [12] * 6 + [6, 6] + [12, 12]  # arms with an A, the two whose A is frozen, and the two shadows


def test_every_arm_is_validated_on_the_true_pairs(controls: Path) -> None:
    """Before the first step all have the base's validation loss; their training losses differ."""
    fields = [line.split(",") for line in metrics(controls)[1:]]
    rows = [(step, arm, name, round(float(value), 9)) for step, arm, name, value in fields]
    assert len({value for step, _, name, value in rows if (step, name) == ("0", "val/loss")}) == 1
    first = {arm: value for step, arm, name, value in rows if (step, name) == ("1", "train/loss")}
    assert first["r6-s0"] == first["r6-s0-frozen_a"]
    assert len(set(first.values())) == 6


def test_a_run_of_controls_resumes_to_the_bit(folder: Path, controls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen A comes from the checkpoint, not from its seed."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        run(folder, *CONTROLS, "run.name=controls-stopped")
    monkeypatch.setattr("deltaw.lora.layers._start", lambda arm, module, width: torch.zeros(arm.rank, width))
    assert_same_run(run(folder, *CONTROLS, "run.name=controls-stopped"), controls)


def test_a_logger_of_lightning_gets_the_metrics_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    logged = run(folder, "logger=tensorboard", "run.name=logged", "trainer.max_steps=2")
    events = EventAccumulator(str(folder / "tensorboard" / "logged")).Reload()
    (last,) = [line for line in metrics(logged) if line.startswith("2,r6-s0,val/loss")]
    assert events.Scalars("val/loss/r6-s0")[-1].value == pytest.approx(float(last.rpartition(",")[2]))
