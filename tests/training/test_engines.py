"""All engines give the same numbers: one process, several with the whole base, several with a part of it."""

import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM

from deltaw.errors import UserError
from deltaw.lora.arms import arms_from
from deltaw.lora.attach import attach
from deltaw.model.loading import load_base, load_tokenizer
from deltaw.model.names import block_of
from deltaw.model.projections import projections
from deltaw.run.directory import RunDirectory
from deltaw.training import validation
from deltaw.training.engines import shard
from deltaw.training.task import LoraArms
from tests.support.processes import forked, train
from tests.support.tiny import factors, largest_difference, make_labelled, make_t5, metrics, run

ARMS = ["arms.ranks=[2,6]", "arms.seeds=[0,1]", "arms.controls=[shuffled,frozen_a]", "data.judged=6", "truncate=[2]"]
ENGINES = [  # two processes of DDP: test_arms_train.py
    ("fsdp", 2),
    pytest.param("ddp", 4, marks=pytest.mark.slow),
    pytest.param("fsdp", 4, marks=pytest.mark.slow),
]
FLOAT32 = ["arms.ranks=[2,6]", "trainer.precision=32-true", "trainer.max_steps=10"]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    return run(folder, *ARMS, "run.name=alone")


def named(values: Path) -> dict[tuple[str, ...], float]:
    """The values in `metrics.csv` by step, arm and name."""
    rows = [line.split(",") for line in metrics(values)[1:]]
    return {tuple(row[:3]): float(row[3]) for row in rows}


def assert_same_run(left: Path, right: Path) -> None:
    arms = sorted(path.name for path in (right / "snapshots").iterdir())
    assert sorted(path.name for path in (left / "snapshots").iterdir()) == arms
    for step in (0, 5, 10, 15, 20):
        assert max(largest_difference(factors(left, arm, step), factors(right, arm, step)) for arm in arms) <= 1e-10
    assert named(left) == pytest.approx(named(right), abs=1e-9)
    each, other = (RunDirectory(run).evaluation() for run in (left, right))
    pd.testing.assert_frame_equal(each, other, rtol=0, atol=1e-9)
    assert "judged" in set(each.split)


@pytest.mark.ddp
@pytest.mark.parametrize(("engine", "processes"), ENGINES)
def test_every_engine_trains_the_same_arms_as_one_process(
    folder: Path, alone: Path, engine: str, processes: int
) -> None:
    other = train(folder, *ARMS, f"run.name={engine}-{processes}", f"engine={engine}", processes=processes)
    assert_same_run(other, alone)
    for file in sorted((alone / "snapshots").glob("*/*/*")):
        twin = other / file.relative_to(alone)
        assert twin.stat().st_size == file.stat().st_size
        assert file.suffix != ".json" or twin.read_text() == file.read_text()
    kept = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (other, alone)]
    states = [{name: value.shape for name, value in one["state_dict"].items()} for one in kept]
    assert states[0] == states[1]


@pytest.mark.ddp
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_two_processes_train_the_same_arms_beside_shadows_to_the_bit(folder: Path, engine: str, precision: str) -> None:
    settings = ["arms.ranks=[2,6]", f"engine={engine}", f"trainer.precision={precision}", "trainer.max_steps=10"]
    name = f"run.name={engine}{precision}-shadows"
    with_none, with_two = (train(folder, *settings, f"{name}{n}", f"arms.shadows={n}") for n in (0, 2))
    for arm in ("r2-s0", "r6-s0"):
        assert largest_difference(factors(with_none, arm, 10), factors(with_two, arm, 10)) == 0


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("before", "after", "packing"),
    [
        (("fsdp", 2), ("ddp", 1), "false"),
        (("ddp", 2), ("fsdp", 1), "true"),
        pytest.param(("ddp", 4), ("fsdp", 2), "false", marks=pytest.mark.slow),
    ],
)
def test_a_run_resumes_under_another_engine_with_other_processes(
    folder: Path, alone: Path, before: tuple[str, int], after: tuple[str, int], packing: str
) -> None:
    name = f"{before[0]}-then-{after[0]}"
    settings = [*ARMS, f"run.name={name}", f"data.packing={packing}"]
    taken = folder / "runs" / name / "snapshots" / "r2-s0"
    stopped = forked(folder, *settings, f"engine={before[0]}", processes=before[1], expected=128 + signal.SIGTERM)
    with stopped as processes:
        while processes[0].is_alive() and not (taken / "step-00000005").exists():
            time.sleep(0.01)
        processes[-1].terminate()  # one process gets the signal, and informs the others
    assert not (taken / "step-00000020").exists()
    assert_same_run(train(folder, *settings, f"engine={after[0]}", processes=after[1]), alone)


def signal_in_the_validation_of_one() -> None:
    original = validation.losses_and_classes

    def stop(task: LoraArms, batch: dict[str, torch.Tensor], arms: int) -> tuple[torch.Tensor, torch.Tensor]:
        if task.trainer.global_step == 7 and task.trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, batch, arms)

    validation.losses_and_classes = stop


@pytest.mark.ddp
def test_a_signal_to_one_process_leaves_the_validation_of_all(folder: Path, alone: Path) -> None:
    settings = [*ARMS, "run.name=left", "data.micro_batch=1"]
    before, expected = signal_in_the_validation_of_one, 128 + signal.SIGTERM
    with forked(folder, *settings, "engine=ddp", processes=2, before=before, expected=expected):
        pass
    assert 7 not in set(RunDirectory(folder / "runs" / "left").evaluation().step)
    assert_same_run(train(folder, *settings, "engine=fsdp", processes=2), alone)


@pytest.mark.ddp
def test_engines_agree_in_float32_to_rounding(folder: Path) -> None:
    single = run(folder, *FLOAT32, "run.name=single32")
    for engine in ("ddp", "fsdp"):
        other = train(folder, *FLOAT32, f"run.name={engine}32", f"engine={engine}")
        for arm in ("r2-s0", "r6-s0"):
            left, right = factors(other, arm, 10), factors(single, arm, 10)
            for site in {key.partition(".lora_")[0] for key in left}:
                products = [side[f"{site}.lora_B.weight"] @ side[f"{site}.lora_A.weight"] for side in (left, right)]
                assert (products[0] - products[1]).norm() <= 1e-4 * products[1].norm()


@pytest.mark.ddp
@pytest.mark.parametrize(
    "settings",
    [
        ["data.packing=true", "arms.list=[{rank:2},{rank:6,rank_pattern:{v_proj:3}},{rank:2,control:shuffled}]"],
        ["task=seq2seq", "model.path={folder}/t5", "arms.controls=[frozen_a]"],
    ],
)
def test_sharding_works_with_packing_rank_patterns_and_encoder_decoders(folder: Path, settings: list[str]) -> None:
    make_t5(folder / "t5")
    settings = [setting.replace("{folder}", str(folder)) for setting in settings]
    name = "run.name=" + settings[0].replace("=", "-")
    if "list" in settings[1]:
        settings.append("arms.ranks=null")
    single = run(folder, *settings, name)
    other = train(folder, *settings, f"{name}-fsdp", "engine=fsdp")
    assert named(other) == pytest.approx(named(single), abs=1e-9)
    for arm in (path.name for path in (single / "snapshots").iterdir()):
        assert largest_difference(factors(other, arm), factors(single, arm)) <= 1e-10


@pytest.mark.ddp
def test_classifiers_and_their_heads_are_sharded_too(folder: Path) -> None:
    make_labelled(folder / "labelled.jsonl")
    settings = ["task=classification", f"data.path={folder / 'labelled.jsonl'}", "trainer.max_steps=5"]
    single = run(folder, *settings, "run.name=labels")
    other = train(folder, *settings, "run.name=labels-fsdp", "engine=fsdp")
    for arm in ("r2-s0", "r6-s0"):
        assert "base_model.model.score.weight" in factors(single, arm, 5)
        assert largest_difference(factors(other, arm, 5), factors(single, arm, 5)) <= 1e-10
    assert named(other) == pytest.approx(named(single), abs=1e-9)


@pytest.mark.parametrize("ranks", [[2], [2, 6], [2, 3, 4, 5, 6]])
def test_layers_are_gathered_once_for_all_arms(folder: Path, ranks: list[int]) -> None:
    """Once forward and once backward, whatever the number of arms; a fake process group counts as process 0 of two."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        base = AutoModelForCausalLM.from_pretrained(folder / "base").train()
        modules = list(projections(base))
        arms = arms_from(ranks, [0], None, [], 16.0, "alpha/r", 1e-3)
        attach(base, modules, arms)
        shard(base, modules, init_device_mesh("cpu", (2,)))
        with CommDebugMode() as counted:
            base(input_ids=torch.ones(len(arms), 7, dtype=torch.long)).logits.sum().backward()
    finally:
        dist.destroy_process_group()
    calls = {str(name).rpartition(".")[2]: count for name, count in counted.get_comm_counts().items()}
    layers = base.config.num_hidden_layers
    assert calls == {
        "_allgather_base_": 1 + 2 * layers,
        "_reduce_scatter_base_": layers,
    }  # the rest of the base stays gathered


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_share_the_pages_of_a_base_in_the_dtype_of_its_files(folder: Path) -> None:
    """So that no process of a machine has a copy before it takes its part."""
    base = load_base(str(folder / "base"), load_tokenizer(str(folder / "base"))).model
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "model.safetensors" in line]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    assert all(any(first <= weight.data_ptr() < last for first, last in spans) for weight in base.parameters())


def test_a_block_is_the_outermost_numbered_module() -> None:
    names = {
        "model.layers.3.self_attn.q_proj": "model.layers.3",
        "encoder.block.10.layer.1.EncDecAttention.q": "encoder.block.10",
        "transformer.h.0.attn.c_attn.q_proj": "transformer.h.0",
        "lm_head": "",
    }
    assert {name: block_of(name) for name in names} == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["engine=zero3"], "give one of auto, single, ddp, fsdp"),
        (["engine=single", "trainer.devices=2"], "there are 2"),
        (["engine=fsdp", "model.dtype=nf4", "trainer.precision=32-true"], "cannot split packed weights"),
        (["timeout=0"], "give a number above 0"),
    ],
)
def test_settings_that_no_engine_supports_are_refused(folder: Path, settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(folder, "run.name=refused", *settings)
    assert not (folder / "runs" / "refused").exists()


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ([], "ddp: "),
        (["device.memory=0.001"], "fsdp: TOO LARGE, "),
        (["device.memory=0.0001", "model.dtype=nf4", "trainer.precision=32-true"], "ddp: TOO LARGE, "),
    ],
)
def test_auto_takes_the_first_engine_that_fits_and_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: list[str], engine: str
) -> None:
    run(folder, "dry_run=true", "run.name=dry", "trainer.devices=2", *settings)
    out = capsys.readouterr().out
    assert f"engine={engine}" in out
    assert "machine 0: processes 0 to 1" in out
    assert not (folder / "runs" / "dry").exists()
