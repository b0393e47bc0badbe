"""A plan counts what training takes: each number is compared with the same number of real training."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from deltaw.commands.plan import plan_table
from deltaw.data.example import Example
from deltaw.data.packing import packed_batch
from deltaw.errors import UserError
from deltaw.lora.arms import arms_from
from deltaw.lora.layers import Moment, set_moment
from deltaw.model import short_attention
from deltaw.model.examples_in_rows import examples_in_rows
from deltaw.model.loading import load_tokenizer
from deltaw.plan.arithmetic import RESERVED, Hardware, device_memory
from deltaw.plan.forecast import workload_of
from deltaw.plan.suggestion import Setup, suggest
from deltaw.plan.workload import Workload
from deltaw.run.directory import CHECKPOINT
from deltaw.training.build import base_of, corpus_of
from deltaw.training.objectives import LOGITS_AT_ONCE, label_losses
from deltaw.training.task import LoraArms, task_with_arms
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import ROOT, overrides, run

LAYERS, TOKENS = 12, 40
GB = 1e9


@pytest.fixture(scope="module")
def gpt3() -> Workload:
    return workload("model=gpt3", f"model.path={ROOT}/conf/model/gpt3", "data.max_length=2048")


def config(*words: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(words))


def workload(*words: str) -> Workload:
    cfg = config(*words)
    return workload_of(cfg, arms_from(cfg.arms.ranks, [0], None, [], 16.0, "alpha/r", 1e-3))


def real_task(cfg: DictConfig) -> LoraArms:
    tokenizer = load_tokenizer(cfg.model.path)
    arms = arms_from(cfg.arms.ranks, [0], None, [], 16.0, "alpha/r", 1e-3)
    base = base_of(cfg, tokenizer, corpus_of(cfg.data, cfg.task, tokenizer))
    return task_with_arms(cfg, arms, base)[1]


def row_of_each_arm(task: LoraArms) -> dict[str, Tensor]:
    learnt = [6] * (TOKENS - 1)  # as many as a row can have
    row = [Example([5], learnt, learnt)]
    if task.objective.packs:
        return packed_batch([row] * len(task.arms), task.objective.collate, limit=0)
    return task.objective.collate(row * len(task.arms))


def kept_bytes(task: LoraArms, forward: Callable[[], Tensor]) -> int:
    """Bytes of all storages that autograd keeps, without the weights."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*task.base.parameters(), *task.base.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
    assert loss.requires_grad
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights)


def deep(name: str, folder: Path) -> Path:
    """A model of `LAYERS` layers, so that the rest of it weighs little."""
    architecture = ARCHITECTURES[name]
    return replace(architecture, config=architecture.config | {"num_hidden_layers": LAYERS}).save(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "packing"),
    [(name, "null") for name in ("llama", "gpt2", "opt", "bloom", "falcon")]
    + [(name, "true") for name in ("llama", "gpt2", "mistral", "phi3")],
)
def test_activations_and_weights_equal_those_of_a_real_forward_pass(
    name: str, packing: str, dtype: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_attention, "LONGEST", 0)  # the plan counts what a GPU's kernels keep
    words = (f"model.path={deep(name, tmp_path)}", f"model.dtype={dtype}", f"data.packing={packing}")
    cfg = config(*overrides(folder, *words))
    cfg.trainer.precision = "32-true"
    counted, task = workload_of(cfg, arms_from([2, 6], [0], None, [], 16.0, "alpha/r", 1e-3)), real_task(cfg)
    weights = sum(tensor.nbytes for tensor in (*task.base.parameters(), *task.base.buffers()))
    assert counted.base.total_bytes + counted.arms.total_bytes == weights
    batch = row_of_each_arm(task)
    with examples_in_rows(packed=packing == "true"):
        kept = kept_bytes(task, lambda: label_losses(task.objective, task.base, batch).sum())
        task.base.activation_checkpointing_enable({"use_reentrant": False})
        inputs = kept_bytes(task, lambda: label_losses(task.objective, task.base, batch).sum())
    # A CPU keeps the means of a LayerNorm in bfloat16, a GPU in float32.
    row = counted.row
    assert row.kept_bytes + row.loss_bytes == pytest.approx(kept, rel=0 if dtype == "float32" else 0.015)
    # Beside the inputs of its layers, BLOOM keeps the inputs of a norm before them.
    assert row.checkpointed_bytes + row.loss_bytes == pytest.approx(inputs, rel=0.05 if name == "bloom" else 0.01)
    assert inputs < kept / 2


def test_packed_rows_are_planned_where_the_run_packs_and_not_for_a_device_that_may_be_a_gpu(folder: Path) -> None:
    def kept(*words: str) -> float:
        return workload(*overrides(folder, "data.micro_batch=null", *words)).row.kept_bytes

    packed, plain = kept("data.packing=true"), kept("data.packing=false")
    assert packed > plain  # for the mask, and k and v once for each head
    assert kept() == kept("data.packing=true", "device.memory=80") == packed
    assert kept("device.memory=80") == kept("data.micro_batch=2") == kept("trainer.accelerator=gpu") == plain


def test_parameters_gradients_and_moments_equal_those_of_a_run(folder: Path) -> None:
    words = ("arms.controls=[frozen_a]", "run.name=counted", "trainer.max_steps=2")
    cfg = config(*overrides(folder, *words))
    arms = workload_of(cfg, arms_from([2, 6], [0], None, ["frozen_a"], 16.0, "alpha/r", 1e-3)).arms
    saved = torch.load(run(folder, *words) / CHECKPOINT, weights_only=True)
    factors = {name: tensor for name, tensor in saved["state_dict"].items() if name != "skipped"}
    moments = [state["exp_avg"] for state in saved["optimizer_states"][0]["state"].values()]
    assert arms.total_bytes == sum(tensor.nbytes for tensor in factors.values())
    assert arms.trained_bytes == sum(moment.nbytes for moment in moments) < arms.total_bytes
    of_arms = [
        tensor.numel() for name, tensor in factors.items() if int(name.rpartition(".")[2]) < len(arms.parameters)
    ]
    assert sum(arms.parameters.values()) == sum(of_arms) < sum(tensor.numel() for tensor in factors.values())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_flops_equal_those_of_a_real_forward_and_backward_pass(name: str, folder: Path, tmp_path: Path) -> None:
    cfg = config(*overrides(folder, f"model.path={deep(name, tmp_path)}", "trainer.precision=32-true"))
    row, task = workload_of(cfg, arms_from([2, 6], [0], None, [], 16.0, "alpha/r", 1e-3)).row, real_task(cfg)
    task.base.set_attn_implementation("eager")  # the counter knows no fast kernel of a CPU
    task.base.enable_input_require_grads()  # else the first layer's inputs have no gradient
    set_moment(task.base, Moment(signs=torch.ones(2, 1, 1, dtype=torch.long)))  # a shadow of each arm learns

    def added(_: torch.Size, left: torch.Size, right: torch.Size, **__: object) -> int:
        return 2 * left.numel() * right[1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added}) as counter:  # nor sums in place
        task.loss_sums(row_of_each_arm(task)).sum().backward()
    # Eager attention also computes the products with later tokens.
    assert row.step_flops(checkpointing=False) + 3 * row.attention_flops == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )


def test_gpt3_has_the_numbers_of_its_shape(gpt3: Workload) -> None:
    width, vocabulary, tokens = 12288, 50257, 2048
    matrices = 96 * 12 * width**2
    base, arms = gpt3.base, gpt3.arms
    assert gpt3.multiplied_parameters == matrices + vocabulary * width * (tokens - 1) / tokens  # the first has no label
    assert base.packable_parameters == matrices
    biases_and_norms = 96 * 13 * width + 2 * width
    assert base.parameters == matrices + (vocabulary + tokens) * width + biases_and_norms
    assert base.total_bytes == 2 * base.parameters
    assert base.largest_layer_bytes * 96 == base.layers_bytes
    assert arms.parameters == {"r8-s0": 96 * 2 * 8 * 2 * width, "r64-s0": 96 * 2 * 64 * 2 * width}
    assert arms.total_bytes == arms.trained_bytes == 4 * 2 * sum(arms.parameters.values())  # each with a shadow
    attention, factors = 12 * 96 * width * tokens / 2, (6 + 4) * 96 * 2 * (8 + 64) / 2 * 2 * width
    flops_per_token = gpt3.row.step_flops(checkpointing=False) / (2 * tokens)
    assert flops_per_token == 4 * gpt3.multiplied_parameters + attention + factors
    assert base.with_parameter_bytes(1).total_bytes == base.total_bytes - matrices


@pytest.mark.parametrize(
    ("devices", "gigabytes", "checkpointing", "engine", "words"),
    [
        (1, 80, True, None, "devices would fit (fsdp)"),
        (64, 80, False, None, "model.gradient_checkpointing=true would fit"),
        (64, 27, True, None, "128 devices would fit"),
        (64, 80, True, "fsdp", "the links hold it up"),
        (64, 640, False, "fsdp", "would leave room for the whole base"),
        (64, 640, True, "ddp", "nothing but the factors' gradients has to travel"),
        (1, 1000, True, "single", "model.gradient_checkpointing=false"),
        (48, 80, True, "fsdp", "data.batch=64 does not come out even on 48 devices: planned for data.batch=96"),
    ],
)
def test_the_engine_is_the_one_that_moves_least_and_fits(
    gpt3: Workload, devices: int, gigabytes: int, checkpointing: bool, engine: str | None, words: str
) -> None:
    setup = Setup(gpt3, Hardware(devices, gigabytes * GB, 50 * GB, 400e12), checkpointing)
    plan = suggest(setup, batch=64)
    assert plan.engine == engine if engine else not plan.fits
    assert words in "\n".join((plan.reason, *plan.remarks))
    assert plan.rows * plan.micro_batches == -(-64 // devices)
    needed = setup.memory(plan.engine, plan.rows).total
    assert (needed <= (1 - RESERVED) * gigabytes * GB) == plan.fits


def test_memory_for_logits_does_not_grow_with_the_rows(gpt3: Workload) -> None:
    logits = [device_memory(gpt3, 1, rows, checkpointing=False).largest for rows in (1, 2, 16)]
    assert logits == [pytest.approx(3 * 4 * LOGITS_AT_ONCE, rel=0.01)] * 3  # three times in float32


def test_memory_for_few_logits_grows_with_the_rows(folder: Path) -> None:
    small = workload(*overrides(folder))
    one, three = (device_memory(small, 1, rows, checkpointing=False).largest for rows in (1, 3))
    assert three == 3 * one


def test_the_micro_batch_is_the_largest_that_fits_and_comes_out_even(gpt3: Workload) -> None:
    def rows(gigabytes: int, most: int | None = None) -> tuple[int, int]:
        setup = Setup(gpt3, Hardware(64, gigabytes * GB, 50 * GB, 400e12), checkpointing=True)
        plan = suggest(setup, 64 * 12, most)
        return plan.rows, plan.micro_batches

    assert [rows(gigabytes) for gigabytes in (50, 80, 100, 200)] == [(2, 6), (4, 3), (6, 2), (12, 1)]
    assert rows(200, most=5) == (4, 3)


def test_a_folder_with_a_config_alone_is_enough_for_a_plan(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "base" / "config.json", tmp_path)
    words = ["plan=true", f"model.path={tmp_path}", f"data.path={tmp_path}/none.jsonl", "trainer.devices=64"]
    printed = plan_table(config(*overrides(tmp_path, *words, "data.batch=64", "device.memory=0.001")))
    assert "64 devices of 0.001 GiB" in printed
    assert "TOO LARGE even as: engine=fsdp" in printed
    assert "model.gradient_checkpointing=true would fit" in printed
    assert len(printed.splitlines()) <= 40 and max(map(len, printed.splitlines())) <= 120
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(UserError, match=r"model.path=.*nowhere could not be loaded"):
        plan_table(config(*overrides(tmp_path, *words, f"model.path={tmp_path}/nowhere")))


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_every_experiment_can_be_planned(experiment: str, tmp_path: Path) -> None:
    cfg = config(f"experiment={experiment}")
    if cfg.data.name == "hub":  # a base of two layers in place of the one on the hub
        kind = "roberta" if cfg.task == "classification" else "gpt2"
        small = AutoConfig.for_model(kind, num_hidden_layers=2, hidden_size=1024, num_attention_heads=16)
        small.save_pretrained(tmp_path)
        cfg.model.path = str(tmp_path)
    printed = plan_table(cfg)
    assert "suggested: engine=" in printed or "TOO LARGE even as: engine=" in printed
    assert experiment != "deep96" or "96 layers" in printed  # which the first run pretrains


@pytest.mark.parametrize(("devices", "count"), [("3", 3), ("auto", 1), ("-1", 1), ("[0,2]", 2)])
def test_a_plan_is_for_the_devices_that_the_config_asks_for(devices: str, count: int, folder: Path) -> None:
    words = plan_table(config(*overrides(folder, f"trainer.devices={devices}", "trainer.accelerator=cpu")))
    assert f"; {count} device{'' if count == 1 else 's'} of " in words.splitlines()[0]


@pytest.mark.parametrize("devices", ["0", "[]", "many"])
def test_a_number_of_devices_that_nobody_has_is_refused(devices: str, folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be planned for: give a number, a list of them, or auto"):
        plan_table(config(*overrides(folder, f"trainer.devices={devices}")))
