"""What runs lack, each as a sentence, without a crash or a number."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deltaw.advice.advise import advice_of
from deltaw.advice.answer import Advice
from deltaw.run.directory import RunDirectory
from tests.support.judged import STEP, Examples, Measured, write_judged


def advised(path: Path, examples: Examples, *, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Advice:
    uncut = examples.arm(2.0)
    arms = {"r8-s0": Measured(uncut), "r64-s0": Measured(uncut, cuts={8: examples.arm(0.0, 0.01, of=uncut)})}
    return advice_of([write_judged(path, examples, arms, change=change)], 0.01)


def test_folders_have_no_losses() -> None:
    assert "Adapter folders tell no losses" in str(advice_of([], 0.01).missing)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.iloc[:0], "has no judged losses"),
        (lambda table: table.drop(columns=["split", "cut", "dropped", "group"]), "has no judged losses"),
        (lambda table: table[table.step > 0], "none of its first step"),
        (lambda table: table[table.step == 0], "none of its last step"),
        (lambda table: table.assign(labels=0), "on examples without a label"),
        (lambda table: table[table.example == 0], "One judged example tells no error"),
        (lambda table: table.assign(group=7), "One judged group (data.group) of 50 examples"),
        (lambda table: table.assign(loss=table.loss.where(table.step == 0)), "Every arm of the task diverged"),
        (lambda table: table.assign(loss=np.inf), "The base's own losses on the judged examples are not finite"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], words: str) -> None:
    advice = advised(tmp_path / "x", Examples(count=50), change=change)
    assert advice.missing is not None and words in advice.missing
    assert advice.ship is None and advice.train is None and advice.learned == []


def test_a_run_without_judged_examples_says_so(tmp_path: Path) -> None:
    examples = Examples(count=50)
    arms = {"r8-s0": Measured(examples.base)}
    config = {"trainer": {"max_steps": STEP}, "data": {"judged": 0}}
    run = write_judged(tmp_path / "x", examples, arms, change=lambda table: table.iloc[:0], config=config)
    assert "data.judged=0" in str(advice_of([run], 0.01).missing)


def test_data_too_few_to_set_any_aside_are_no_reason_to_judge_again(tmp_path: Path) -> None:
    examples = Examples(count=0)
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.base)}, config={"data": {"judged": None}})
    missing = str(advice_of([run], 0.01).missing)
    assert "no example left to judge by, because its data are few" in missing and "again: it judges" not in missing


def test_a_run_of_a_version_that_set_none_aside_is_not_judged_again(tmp_path: Path) -> None:
    examples = Examples(count=50)
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.base)}, change=lambda t: t.iloc[:0])
    record = json.loads((run.path / "run.json").read_text())
    del record["data"]["judged"]
    (run.path / "run.json").write_text(json.dumps(record))
    missing = str(advice_of([RunDirectory(run.path)], 0.01).missing)
    assert "the version that trained it set no example aside" in missing and "same command" not in missing


def test_rank_one_has_no_cut(tmp_path: Path) -> None:
    examples = Examples(count=50)
    advice = advice_of([write_judged(tmp_path / "x", examples, {"r1-s0": Measured(examples.arm(2.0))})], 0.01)
    assert advice.ship is None and advice.remarks[0].startswith("Rank 1 is the smallest, so there is no cut to ship")


def test_a_cut_that_diverged_ships_nothing_and_says_so(tmp_path: Path) -> None:
    examples = Examples(count=50)
    arm = Measured(examples.arm(2.0), cuts={4: np.full(50, np.nan)})
    advice = advice_of([write_judged(tmp_path / "x", examples, {"r8-s0": arm})], 0.01)
    assert advice.ship is None and advice.remarks[0].startswith("No cut of r8-s0 can be advised")


def test_a_run_that_stopped_says_where(tmp_path: Path) -> None:
    examples = Examples(count=50)
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.base)}, change=lambda t: t.iloc[:0])
    (run.path / "snapshots" / "r8-s0" / "step-00000010").rename(run.path / "snapshots" / "r8-s0" / "step-00000005")
    assert "stopped after step 5 of 10: start the same command again" in str(advice_of([run], 0.01).missing)


def test_a_run_without_validation_losses_says_so(tmp_path: Path) -> None:
    examples = Examples(count=50)
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.arm(2.0))})
    (run.path / "metrics.csv").unlink()
    assert "has no validation losses" in str(advice_of([run], 0.01).missing)


def test_equal_losses_are_no_gain(tmp_path: Path) -> None:
    examples = Examples(count=50)
    arms = {
        name: Measured(examples.base, cuts={4: examples.base}, dropped={"q": examples.base})
        for name in ("r8-s0", "r8-s1", "r8-s2", "r4-s0", "r4-s1", "r4-s2")
    }
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.missing is None and (advice.ship, advice.recipe, advice.where) == (None, None, [])
    assert all(one.doubt is not None and one.doubt.startswith("has no clear gain") for one in advice.learned)
    assert advice.train is None


def test_noise_is_not_learned(tmp_path: Path) -> None:
    learned = 0
    for seed in range(20):
        examples = Examples(count=200, seed=seed)
        arm = Measured(examples.arm(0.0), cuts={4: examples.arm(0.0)})
        advice = advice_of([write_judged(tmp_path / str(seed), examples, {"r8-s0": arm})], 0.01)
        learned += advice.learned[0].doubt is None
        assert advice.ship is None or advice.ship.ship is None
    assert learned <= 3  # 1 on average


def test_an_arm_that_diverged_is_named_and_the_others_are_judged(tmp_path: Path) -> None:
    examples = Examples()
    broken = examples.arm(2.0)
    broken[3] = np.nan
    cut = {4: examples.arm(2.0, 0.0)}
    arms = {"r8-s0": Measured(broken, np.nan, cuts=cut), "r8-s1": Measured(examples.arm(2.0, 0.0), cuts=cut)}
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.learned[0].doubt == "diverged" and advice.learned[0].gain is None
    assert advice.ship is not None and advice.ship.arm == "r8-s1"
    assert "r8-s0 diverged and does not count." in advice.remarks


def test_all_arms_of_the_largest_rank_diverged(tmp_path: Path) -> None:
    examples = Examples()
    arms = {"r8-s0": Measured(examples.arm(2.0)), "r64-s0": Measured(examples.base * np.nan, np.nan)}
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.ship is None and any("Every arm of r=64 diverged" in remark for remark in advice.remarks)


def test_a_run_without_cuts_says_how_to_get_them(tmp_path: Path) -> None:
    examples = Examples()
    advice = advice_of([write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.arm(2.0))})], 0.01)
    assert advice.ship is None and any("truncate=[1,2,4,8,16,32]" in remark for remark in advice.remarks)


def test_a_snapshot_of_another_step_is_told(tmp_path: Path) -> None:
    examples = Examples()
    run = write_judged(tmp_path / "x", examples, {"r8-s0": Measured(examples.arm(2.0))})
    (run.path / "snapshots" / "r8-s0" / "step-00000020").mkdir(parents=True)
    assert any("step 10" in remark and "step 20" in remark for remark in advice_of([run], 0.01).remarks)


def test_examples_without_labels_do_not_count(tmp_path: Path) -> None:
    examples = Examples(count=50)
    advice = advised(
        tmp_path / "x", examples, change=lambda table: table.assign(labels=table.labels.where(table.example > 9, 0))
    )
    assert advice.evidence is not None and advice.evidence.judged == 40


@pytest.mark.parametrize(
    ("words", "other"),
    [
        ("the base's hash is", {"base": "b" * 64}),
        ("one and two were judged on different examples", {"change": lambda table: table[table.example > 0]}),
        ("data.batch is 16", {"config": {"trainer": {"max_steps": STEP}, "data": {"batch": 8, "judged": 50}}}),
    ],
)
def test_runs_that_differ_in_more_than_their_arms_are_not_pooled(
    tmp_path: Path, words: str, other: dict[str, object]
) -> None:
    examples = Examples(count=50)
    one = write_judged(tmp_path / "one", examples, {"r8-s0": Measured(examples.arm(2.0))})
    two = write_judged(tmp_path / "two", examples, {"r8-s1": Measured(examples.arm(2.0))}, **other)  # type: ignore[arg-type]
    assert words in str(advice_of([one, two], 0.01).missing)


def test_an_arm_of_two_runs_does_not_count_twice(tmp_path: Path) -> None:
    examples = Examples(count=50)
    runs = [write_judged(tmp_path / name, examples, {"r8-s0": Measured(examples.arm(2.0))}) for name in ("one", "two")]
    assert "would count twice" in str(advice_of(runs, 0.01).missing)


def test_an_arm_that_was_not_judged_is_told_first(tmp_path: Path) -> None:
    examples = Examples(count=50)
    arms = {"r8-s0": Measured(examples.arm(2.0)), "r64-s0": Measured(examples.arm(2.0))}
    run = write_judged(
        tmp_path / "x", examples, arms, change=lambda table: table[(table.arm == "r8-s0") | (table.step == 0)]
    )
    remarks = advice_of([run], 0.01).remarks
    assert remarks[0] == "r64-s0 was not judged: start the same command again: it judges without training."
