"""What a run of each task records of its held-out examples."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

import deltaw.commands.train as commands_train
from deltaw.commands.train import Loaded
from deltaw.lora.arm import Arm
from deltaw.model.loading import Base
from deltaw.run.directory import RunDirectory
from tests.support.tiny import make_base, make_bert, make_labelled, make_pairs, make_t5, run

TASKS = {
    "causal": (make_base, make_pairs, []),
    "packed": (make_base, make_pairs, ["data.packing=true"]),
    "seq2seq": (make_t5, make_pairs, ["task=seq2seq"]),
    "classification": (make_bert, make_labelled, ["task=classification"]),
}


load = commands_train.load


def judged_by_validation(cfg: DictConfig, arms: list[Arm], shape: Base) -> Loaded:
    """As `load`, but what the arms are judged by are the examples that validate."""
    loaded = load(cfg, arms, shape)
    return replace(loaded, judged=loaded.validation)


@pytest.fixture(scope="module", params=TASKS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("task")
    make, write, more = TASKS[request.param]
    data = [f"model.path={make(folder / 'base')}", f"data.path={write(folder / 'examples.jsonl')}"]
    steps = ["trainer.max_steps=12", "metrics.validate_every=6", "optim.lr=0.05", "data.judged=6", "truncate=[]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands_train, "load", judged_by_validation)
        return RunDirectory(run(folder, *data, *steps, *more, f"run.name={request.param}"))


def test_the_examples_of_a_validation_sum_to_its_loss_and_accuracy(recorded: RunDirectory) -> None:
    each = recorded.evaluation().query("split == 'validation'")
    assert each.groupby(["step", "arm"]).example.nunique().to_dict() == {
        (step, arm): 8 for step in (0, 6, 12) for arm in ("r2-s0", "r6-s0")
    }
    assert each.example.nunique() == 8 and (each.right <= each.labels).all() and each.right.sum() > 0
    sums = each.groupby(["step", "arm"])[["loss", "labels", "right"]].sum()
    metrics = recorded.metrics().pivot_table(index=["step", "arm"], columns="name", values="value").loc[sums.index]
    np.testing.assert_allclose(sums.loss / sums.labels, metrics["val/loss"], rtol=1e-12)
    np.testing.assert_allclose(sums.right / sums.labels, metrics["val/accuracy"], rtol=1e-6)  # in float32
    if recorded.record.task == "classification":
        assert (each.labels == 1).all()


def test_variants_from_snapshots_reach_what_the_arms_reached(recorded: RunDirectory) -> None:
    """Each with its own head, before the first step and after the last."""
    each = recorded.evaluation().query("step != 6").set_index(["arm", "step", "example", "group"]).sort_index()
    judged, validated = (each[each.split == split].drop(columns="split") for split in ("judged", "validation"))
    pd.testing.assert_frame_equal(judged, validated, rtol=0, atol=1e-9)
    assert len(judged) == 2 * 2 * 8  # steps, arms, examples
    start, other = judged.query("step == 0").groupby("arm").loss.sum()
    assert (start == other) == (recorded.record.task != "classification")
