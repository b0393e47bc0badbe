"""Whether an arm learned anything."""

import shutil
from pathlib import Path

import pytest

from deltaw.analysis.pairs import with_distinct_names
from deltaw.report.learning import Learning
from deltaw.run.adapter import Adapter, load_adapter
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_evaluation, write_run
from tests.support.summaries import summarise_run


def run_of(path: Path, *names: str, **ends: str) -> RunDirectory:
    """A run; `ends` replaces the last validation loss of arms, whose names have _ for -."""
    run = write_run(path, *names)
    lines = (run / "metrics.csv").read_text().splitlines()
    for name, end in ends.items():
        head = f"10,{name.replace('_', '-')},val/loss,"
        lines = [head + end if line.startswith(head) else line for line in lines]
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    return RunDirectory(run)


def learned(left: Adapter, right: Adapter, basis: str = "all") -> dict[str, Learning]:
    return {one.arm: one for one in summarise_run(left, right, [1], basis).learning}


def test_an_arm_whose_loss_fell_has_learned(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0")
    assert learned(run.adapter("r2-s0"), run.adapter("r4-s0")) == {
        "r2-s0": Learning("r2-s0", 0.5, None, "token", None),
        "r4-s0": Learning("r4-s0", 0.25, None, "token", None),
    }


@pytest.mark.parametrize(
    ("end", "doubt"),
    [
        ("nan", "diverged"),
        ("4.5", "has no clear gain (its validation loss went from 4.00 to 4.50)"),
        ("4", "has no clear gain (its validation loss went from 4.00 to 4.00)"),
    ],
)
def test_an_arm_whose_loss_did_not_fall_is_in_doubt(tmp_path: Path, end: str, doubt: str) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0", r4_s0=end)
    found = learned(run.adapter("r2-s0"), run.adapter("r4-s0"))
    assert (found["r2-s0"].doubt, found["r4-s0"].doubt) == (None, doubt)


@pytest.mark.parametrize(("spread", "in_doubt"), [(0.2, False), (2.0, True)])
def test_a_gain_within_its_error_is_in_doubt(tmp_path: Path, spread: float, in_doubt: bool) -> None:
    """r4-s0 gains 0.25 with a standard error of about the spread ÷ (2 · 2)."""
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0")
    ends = [7.5 + spread * sign for sign in (-1, 1, -1, 1)]
    write_evaluation(run.path, {("r4-s0", 0): [8.0] * 4, ("r4-s0", 10): ends}, labels=[2] * 4)
    found = learned(run.adapter("r2-s0"), run.adapter("r4-s0"))["r4-s0"]
    assert found.se == pytest.approx(spread / 2 / 3**0.5)
    assert (found.doubt is not None) == in_doubt


@pytest.mark.parametrize("control", ["shuffled", "random"])
def test_an_arm_that_ends_no_lower_than_its_control_is_in_doubt(tmp_path: Path, control: str) -> None:
    name = f"r4-s0-{control}"
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0", name, **{name.replace("-", "_"): "3.75"})
    found = learned(run.adapter("r2-s0"), run.adapter("r4-s0"))
    assert found["r4-s0"].doubt == f"ended no lower than its control {name}"
    assert found["r2-s0"].doubt is None  # it has no control
    assert learned(run.adapter("r2-s0"), run.adapter(name))[name].doubt is None  # a control is not doubted for it


def test_an_untrained_arm_has_an_update_of_zero(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0")
    found = learned(run.adapter("r2-s0", 0), run.adapter("r4-s0", 0))
    assert {one.doubt for one in found.values()} == {"has a ΔW of 0"}
    zero = load_adapter(write_adapter(tmp_path / "zero", rank=3, B=0))
    other = load_adapter(write_adapter(tmp_path / "other", rank=3, seed=1))
    for basis in ("all", "A"):
        assert list(learned(zero, other, basis).values()) == [
            Learning(zero.name, None, None, "", "has a ΔW of 0"),
            Learning(other.name, None, None, "", None),
        ]


def test_a_shadow_and_an_arm_without_losses_are_not_known(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0", "r2-s0-shadow1")
    assert learned(run.adapter("r2-s0-shadow1"), run.adapter("r4-s0"))["r2-s0-shadow1"].gain is None
    (run.path / "metrics.csv").unlink()
    assert {one.gain for one in learned(run.adapter("r2-s0"), run.adapter("r4-s0")).values()} == {None}


def test_arms_of_every_seed_are_asked(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0", "r2-s1", "r4-s1", r4_s1="5")
    found = learned(run.adapter("r2-s0"), run.adapter("r4-s0"))
    assert sorted(found) == ["r2-s0", "r2-s1", "r4-s0", "r4-s1"]
    assert [one.arm for one in found.values() if one.doubt] == ["r4-s1"]


def test_two_steps_of_an_arm_are_judged_each_by_its_own_step(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0", r2_s0="4.5")
    shutil.copytree(run.snapshot("r2-s0", 10), run.snapshot("r2-s0", 5))
    with (run.path / "metrics.csv").open("a") as file:
        file.write("5,r2-s0,val/loss,3.5\n")
    early, late = learned(*with_distinct_names(run.adapter("r2-s0", 5), run.adapter("r2-s0", 10))).values()
    assert (early, late.gain) == (Learning("r2-s0@5", 0.5, None, "token", None), -0.5)
    assert late.arm == "r2-s0@10" and late.doubt is not None


def test_a_control_of_another_run_does_not_cast_doubt(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", "r2-s0", "r4-s0")
    other = run_of(tmp_path / "other", "r2-s0", "r4-s0-shuffled", r4_s0_shuffled="1")
    found = learned(other.adapter("r2-s0"), one.adapter("r4-s0"))
    assert [one.doubt for one in found.values()] == [None, None]


def test_an_arm_is_found_where_two_runs_have_an_arm_of_its_name(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", "r2-s0", "r4-s0")
    other = run_of(tmp_path / "other", "r4-s0", r4_s0="4.5")
    for left in ("r2-s0", "r4-s0"):
        pair = with_distinct_names(one.adapter(left), other.adapter("r4-s0"))
        mine, others = learned(*pair).values()
        assert (mine.doubt, others.gain) == (None, -0.5)
