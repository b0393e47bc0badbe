"""What a run of each task records of its validation examples."""

from pathlib import Path

import numpy as np
import pytest

from deltaw.run.directory import RunDirectory
from tests.support.tiny import make_base, make_bert, make_labelled, make_pairs, make_t5, run

TASKS = {
    "causal": (make_base, make_pairs, []),
    "packed": (make_base, make_pairs, ["data.packing=true"]),
    "seq2seq": (make_t5, make_pairs, ["task=seq2seq"]),
    "classification": (make_bert, make_labelled, ["task=classification"]),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_examples_of_a_validation_sum_to_its_loss_and_accuracy(tmp_path: Path, name: str) -> None:
    make, write, more = TASKS[name]
    data = [f"model.path={make(tmp_path / 'base')}", f"data.path={write(tmp_path / 'examples.jsonl')}"]
    steps = ["trainer.max_steps=12", "metrics.validate_every=6", "optim.lr=0.05", "data.judged=6"]
    recorded = RunDirectory(run(tmp_path, *data, *steps, *more, f"run.name={name}"))
    each = recorded.evaluation()
    assert each.groupby(["step", "arm"]).example.nunique().to_dict() == {
        (step, arm): 8 for step in (0, 6, 12) for arm in ("r2-s0", "r6-s0")
    }
    assert each.example.nunique() == 8 and (each.right <= each.labels).all() and each.right.sum() > 0
    sums = each.groupby(["step", "arm"])[["loss", "labels", "right"]].sum()
    metrics = recorded.metrics().pivot_table(index=["step", "arm"], columns="name", values="value").loc[sums.index]
    np.testing.assert_allclose(sums.loss / sums.labels, metrics["val/loss"], rtol=1e-12)
    np.testing.assert_allclose(sums.right / sums.labels, metrics["val/accuracy"], rtol=1e-6)  # in float32
    if name == "classification":
        assert (each.labels == 1).all()
