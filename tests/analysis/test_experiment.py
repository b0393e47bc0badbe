"""Several runs as one experiment: the same as one run with all their arms, or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from deltaw.analysis.compare import compare_all
from deltaw.analysis.excess import excess_of
from deltaw.analysis.experiment import adapter_of, arms_of, best_lr, experiment
from deltaw.analysis.losses import losses_of
from deltaw.analysis.pairs import AdapterPair, adapter_pair
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_run

OF_A_SEED = ("r2-s{}", "r4-s{}", "r2-s{}-shadow1", "r4-s{}-shadow1")
CONFIG = {
    "run": {"name": "one", "dir": "runs/one"},
    "arms": {"ranks": [2, 4], "seeds": [0], "projections": ["q", "v"], "alpha": 16.0},
    "optim": {"lr": 0.002, "warmup": 0.06},
    "trainer": {"max_steps": 10, "devices": 1},
    "snapshots": {"every": 10},
}


def write_job(whole: Path, path: Path, *names: str) -> Path:
    """A run with some arms of another one, and their losses."""
    write_run(path, *names)
    head, *rows = (whole / "metrics.csv").read_text().splitlines()
    kept = [head, *(row for row in rows if row.split(",")[1] in names)]
    (path / "metrics.csv").write_text("\n".join(kept) + "\n")
    return path


@pytest.fixture
def jobs(tmp_path: Path) -> tuple[RunDirectory, list[RunDirectory]]:
    """A run of three seeds, and three runs of one seed each."""
    names = {seed: [name.format(seed) for name in OF_A_SEED] for seed in (0, 1, 2)}
    names[2].append("r4-s0-shuffled")  # a control of another job's arm
    whole = write_run(tmp_path / "whole", *(name for of_seed in names.values() for name in of_seed))
    paths = [write_job(whole, tmp_path / f"seed{seed}", *of_seed) for seed, of_seed in names.items()]
    return RunDirectory(whole), experiment(paths)


def pair_of(runs: list[RunDirectory]) -> AdapterPair:
    left, right = (find_adapter(name, runs, None) for name in default_pair(runs, None, None))
    return adapter_pair(left, right)


def test_jobs_of_one_seed_each_give_the_tables_of_one_run_of_all_seeds(
    jobs: tuple[RunDirectory, list[RunDirectory]],
) -> None:
    of_one_run, of_jobs = pair_of([jobs[0]]), pair_of(jobs[1])
    tables: list[list[pd.DataFrame]] = []
    for subject in (of_one_run, of_jobs):
        pairings = [*subject.study.pairings(), *subject.controls(), subject.two_seeds()]
        compared = compare_all(pairings, ["A", "output"])
        tables.append([compared.pairs, compared.sites, excess_of(subject.study, compared.pairs), subject.losses])
    for one, several in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, several, check_exact=True)
    assert len(of_jobs.study.seeds) == 6 and len(of_jobs.controls()) == 1
    assert [arm.name for arm in of_jobs.ranks()] == [arm.name for arm in of_one_run.ranks()] == ["r2-s0", "r4-s0"]
    assert [run.path.name for run in of_jobs.runs] == ["seed0", "seed1", "seed2"]


@pytest.mark.parametrize("given", ["r4-s2", "seed2/r4-s2", "r4-s2@10", "{0}/seed2/r4-s2@10"])
def test_an_arm_of_any_run_is_found_by_its_name_or_with_its_run(
    jobs: tuple[RunDirectory, list[RunDirectory]], given: str
) -> None:
    runs = jobs[1]
    found = find_adapter(given.format(runs[0].path.parent), runs, None)
    assert (found.name, found.folder) == ("r4-s2", runs[2].snapshot("r4-s2", 10))


@pytest.fixture
def two_rates(tmp_path: Path) -> list[RunDirectory]:
    """Two runs whose arms have the same names and another default learning rate; the second run learns less."""
    paths = [write_run(tmp_path / name / "run", "r2-s0", "r4-s0", "r4-s0-shuffled") for name in ("a", "b")]
    record = json.loads((paths[1] / "run.json").read_text())
    record["arms"] = [arm | {"lr": 0.01} for arm in record["arms"]]
    (paths[1] / "run.json").write_text(json.dumps(record))
    (paths[1] / "metrics.csv").write_text((paths[1] / "metrics.csv").read_text().replace(",3.", ",3.9"))
    return experiment(paths)


def test_an_arm_that_two_runs_have_is_called_by_its_run(two_rates: list[RunDirectory]) -> None:
    paths = [str(run.path) for run in two_rates]  # both runs are called "run"
    arms = ("r2-s0", "r4-s0", "r4-s0-shuffled")
    assert list(arms_of(two_rates)) == [f"{path}/{arm}" for path in paths for arm in arms]
    with pytest.raises(UserError, match=f"r2-s0 is an arm of 2 runs: give {paths[0]}/r2-s0 or {paths[1]}/r2-s0"):
        find_adapter("r2-s0", two_rates, None)
    found = find_adapter(f"{paths[1]}/r2-s0", two_rates, None)
    assert found.name == f"{paths[1]}/r2-s0" and found.folder == two_rates[1].snapshot("r2-s0", 10)
    assert losses_of([found]).arm.tolist() == list(arms_of(two_rates))
    with pytest.raises(UserError, match=r"arms: \["):
        find_adapter("r3-s0", two_rates, None)


def test_the_best_learning_rate_is_sought_in_all_runs(two_rates: list[RunDirectory]) -> None:
    for run in two_rates:
        assert best_lr(two_rates, run.arms["r4-s0"]) == 0.002
        assert best_lr([run], run.arms["r4-s0"]) is None
    assert default_pair(two_rates[::-1], None, None) == tuple(
        f"{two_rates[0].path}/{name}" for name in ("r2-s0", "r4-s0")
    )


def test_a_control_has_its_share_of_the_arm_of_its_own_rate(two_rates: list[RunDirectory]) -> None:
    losses = losses_of([adapter_of(two_rates, name) for name in default_pair(two_rates, None, None)])
    gains = losses.set_index("arm").gain
    for run in two_rates:
        expected = gains[f"{run.path}/r4-s0-shuffled"] / gains[f"{run.path}/r4-s0"]
        (row,) = losses[losses.arm == f"{run.path}/r4-s0-shuffled"].to_dict("records")
        assert row["share"] == pytest.approx(expected)


def test_an_arm_of_another_alpha_or_dropout_is_no_seed(tmp_path: Path) -> None:
    runs = [RunDirectory(write_run(tmp_path / f"s{seed}", f"r2-s{seed}", f"r4-s{seed}")) for seed in range(4)]
    for run, changed in zip(runs[2:], ({"alpha": 32.0}, {"dropout": 0.1}), strict=True):
        arms: Any = [arm | changed for arm in run.record.arms]
        replace(run.record, arms=arms).save(run.path / "run.json")
    found = pair_of(experiment([run.path for run in runs])).study
    assert [seed.seeds for seed in found.seeds] == [(0, 1), (1, 0)]


def with_config(path: Path, **sections: Any) -> Path:
    OmegaConf.save(OmegaConf.merge(CONFIG, sections), path / "config.yaml")
    return path


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"trainer": {"max_steps": 20}}, "trainer.max_steps is 10 in {0} and 20 in {1}"),
        ({"optim": {"warmup": 0.5}}, "optim.warmup is 0.06 in {0} and 0.5 in {1}"),
        ({"arms": {"projections": ["k"]}}, "arms.projections is ['q', 'v'] in {0} and ['k'] in {1}"),
        ({"data": {"group": "author"}}, "data.group is None in {0} and author in {1}"),
    ],
)
def test_runs_of_another_config_are_refused_with_the_key_and_both_values(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    paths = [
        with_config(write_run(tmp_path / "a", "r2-s0")),
        with_config(write_run(tmp_path / "b", "r4-s0"), **sections),
    ]
    with pytest.raises(UserError) as error:
        experiment(paths)
    assert words.format(*paths) in str(error.value) and "are not one experiment" in str(error.value)


def test_runs_may_differ_in_their_arms_and_in_what_a_run_may_change(tmp_path: Path) -> None:
    other = {
        "run": {"name": "other"},
        "arms": {"ranks": [8], "seeds": [1], "alpha": 32.0, "shadows": 2},
        "optim": {"lr": 0.1},
        "trainer": {"devices": 4},
        "snapshots": {"every": 5},
    }
    one = with_config(write_run(tmp_path / "a", "r2-s0"))
    assert len(experiment([one, with_config(write_run(tmp_path / "b", "r8-s1"), **other)])) == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"base": {"name": "tiny", "sha256": "b" * 64}},
            "the base's hash is aaaaaaaaaaaa in {0} and bbbbbbbbbbbb in {1}",
        ),
        ({"data": {"fingerprint": "c" * 64}}, "the data's fingerprint is unknown in {0} and cccccccccccc in {1}"),
        ({"task": "classification"}, "task is causal in {0} and classification in {1}"),
    ],
)
def test_runs_of_another_base_data_or_task_are_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    paths = [write_run(tmp_path / "a", "r2-s0"), write_run(tmp_path / "b", "r4-s0")]
    record = json.loads((paths[1] / "run.json").read_text()) | changed
    (paths[1] / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        experiment(paths)
    assert words.format(*paths) in str(error.value)


def test_an_arm_that_two_runs_trained_alike_would_count_twice(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "a", "r2-s0", "r4-s0"), write_run(tmp_path / "b", "r8-s0", "r4-s0")
    for paths, first in (([one, other], "r4-s0"), ([one, one], "r2-s0")):
        with pytest.raises(UserError, match=f"{first} of {paths[0]} and {first} of {paths[1]} have the same settings"):
            experiment(paths)


def test_two_runs_are_joined_where_they_are_one_experiment_and_else_compared_by_themselves(tmp_path: Path) -> None:
    names = [("r2-s0", "r4-s0"), ("r2-s1", "r4-s1"), ("r2-s0", "r4-s1")]  # the third has arms of the other two
    runs = [RunDirectory(write_run(tmp_path / str(number), *of_run)) for number, of_run in enumerate(names)]
    joined = adapter_pair(runs[0].adapter("r2-s0"), runs[1].adapter("r4-s1"))
    assert sorted(seed.seeds or () for seed in joined.study.seeds) == [(0, 1), (1, 0)]
    assert joined.losses.arm.tolist() == ["r2-s0", "r4-s0", "r2-s1", "r4-s1"]
    apart = adapter_pair(runs[0].adapter("r2-s0"), runs[2].adapter("r4-s1"))
    assert [seed.seeds for seed in apart.study.seeds] == [(0, 1)]
    assert apart.losses.arm.tolist() == ["0/r2-s0", "r4-s0", "2/r2-s0", "r4-s1"]


def test_a_run_that_has_not_come_to_the_step_is_left_out_with_a_remark(
    jobs: tuple[RunDirectory, list[RunDirectory]],
) -> None:
    _, runs = jobs
    for snapshot in runs[1].path.glob("snapshots/*/step-00000010"):
        shutil.rmtree(snapshot)
    subject = pair_of(runs)
    assert sorted(seed.seeds or () for seed in subject.study.seeds) == [(0, 2), (2, 0)]
    remarks = compare_all(list(subject.study.pairings()), ["A"]).remarks
    assert f"{runs[1].path} has no snapshot after step 10: its arms are not compared" in remarks
    assert not any("has no snapshot" in remark for remark in compare_all([pair_of(runs[::2]).pairing], ["A"]).remarks)
