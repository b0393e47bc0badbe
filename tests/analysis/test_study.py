"""The pairs that a study has, and what left and right share beyond their control pair."""

import shutil
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deltaw.analysis import columns
from deltaw.analysis.compare import Pairing, compare_all
from deltaw.analysis.excess import MEASURES, excess_of
from deltaw.analysis.losses import losses_of
from deltaw.analysis.pairs import AdapterPair, with_distinct_names
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.analysis.study import SeedPairs, Study, study_of
from deltaw.errors import UserError
from deltaw.run.adapter import load_adapter
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run

PLACE = ("layer", "projection", "basis", "measure")
THREE_SEEDS = [f"r{rank}-s{seed}{shadow}" for seed in (2, 0, 1) for rank in (2, 4) for shadow in ("", "-shadow1")]


def run_of(path: Path, *names: str) -> RunDirectory:
    return RunDirectory(write_run(path, *names))


def with_shadows(*names: str, count: int = 1) -> list[str]:
    return [*names, *(f"{name}-shadow{n}" for name in names for n in range(1, count + 1))]


def study(run: RunDirectory, left: str, right: str, step: int | None = None) -> Study:
    return study_of(run.adapter(left, step), run.adapter(right, step))


def names(pairings: list[Pairing]) -> list[tuple[str, str]]:
    return [(pairing.left.name, pairing.right.name) for pairing in pairings]


def seeds_of(found: Study) -> list[tuple[int, int]]:
    return [seed.seeds for seed in found.seeds if seed.seeds]


def has_only_its_pair(seed: SeedPairs) -> bool:
    return seed.control == seed.left_shadow == seed.right_shadow == []


def test_one_seed_has_a_pair_for_every_shadow(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *with_shadows("r2-s0", "r4-s0", count=2), "r4-s0-shuffled")
    found = study(run, "r2-s0", "r4-s0")
    (seed,) = found.seeds
    assert (seed.seeds, names([seed.pair])) == ((0, 0), [("r2-s0", "r4-s0")])
    assert names(seed.control) == [("r2-s0-shadow1", "r4-s0-shadow1"), ("r2-s0-shadow2", "r4-s0-shadow2")]
    assert names(seed.left_shadow) == [("r2-s0-shadow1", "r4-s0"), ("r2-s0-shadow2", "r4-s0")]
    assert names(seed.right_shadow) == [("r2-s0", "r4-s0-shadow1"), ("r2-s0", "r4-s0-shadow2")]
    assert found.other_seed == [] and found.one_order


@pytest.mark.parametrize("asked", [(0, 0), (1, 1), (2, 0), (1, 2)])
def test_left_of_every_seed_is_paired_with_right_of_every_other_seed(tmp_path: Path, asked: tuple[int, int]) -> None:
    found = study(run_of(tmp_path / "run", *THREE_SEEDS), f"r2-s{asked[0]}", f"r4-s{asked[1]}")
    assert sorted(seeds_of(found)) == list(permutations(range(3), 2)) and not found.one_order
    for seed in found.seeds:
        assert seed.seeds is not None
        arms = f"r2-s{seed.seeds[0]}", f"r4-s{seed.seeds[1]}"
        assert names([seed.pair]) == [arms]
        assert names(seed.control) == [(f"{arms[0]}-shadow1", f"{arms[1]}-shadow1")]
        assert names(seed.left_shadow) == [(f"{arms[0]}-shadow1", arms[1])]
        assert names(seed.right_shadow) == [(arms[0], f"{arms[1]}-shadow1")]


def test_two_seeds_of_a_rank_are_paired_in_all_combinations(tmp_path: Path) -> None:
    two_seeds = names(study(run_of(tmp_path / "run", *THREE_SEEDS, "r4-s7", "r2-s8"), "r2-s0", "r4-s0").other_seed)
    assert len(set(two_seeds)) == len(two_seeds) == 6 + 6  # of four seeds of each rank
    assert all(left.split("-")[0] == right.split("-")[0] and left != right for left, right in two_seeds)
    assert not any("shadow" in name for names_of_pair in two_seeds for name in names_of_pair)


def test_all_pairs_are_without_cells_and_every_arm_is_told_once(tmp_path: Path) -> None:
    found = study(run_of(tmp_path / "run", *THREE_SEEDS), "r2-s0", "r4-s0")
    pairings = list(found.pairings())
    assert not any(pairing.cells for pairing in pairings) and len(pairings) == 6 * 4 + 2 * 3
    assert sorted(arm.name for arm in found.arms) == [f"r{rank}-s{seed}" for rank in (2, 4) for seed in range(3)]


def test_two_seeds_of_one_rank_are_paired_with_all_seeds_of_this_rank(tmp_path: Path) -> None:
    found = study(run_of(tmp_path / "run", *THREE_SEEDS), "r2-s0", "r2-s1")
    assert sorted(names([seed.pair for seed in found.seeds])) == [
        (f"r2-s{one}", f"r2-s{other}") for one, other in permutations(range(3), 2)
    ]
    assert len(found.arms) == 3


@pytest.mark.parametrize("asked", ["r4-s0", "r4-s1"])
def test_a_seed_of_left_alone_is_paired_with_every_other_seed_of_right(tmp_path: Path, asked: str) -> None:
    run = run_of(tmp_path / "run", *with_shadows("r2-s0", "r4-s0", "r4-s1"))
    found = study(run, "r2-s0", asked)
    assert seeds_of(found) == [(0, 1)] and not found.one_order
    assert [arm.name for arm in found.arms] == ["r2-s0", "r4-s1"]
    assert names(found.seeds[0].control) == [("r2-s0-shadow1", "r4-s1-shadow1")]


def test_arms_of_two_runs_are_joined_by_their_seeds(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", *with_shadows("r2-s0", "r2-s1", "r2-s3"))
    other = run_of(tmp_path / "other", *with_shadows("r4-s0", "r4-s1", "r4-s2"))
    found = study_of(one.adapter("r2-s0"), other.adapter("r4-s0"))
    seeds = [(left, right) for left in (0, 1, 3) for right in (0, 1, 2) if left != right]
    assert sorted(names([pair for seed in found.seeds for pair in (seed.pair, *seed.control)])) == sorted(
        (f"r2-s{left}{shadow}", f"r4-s{right}{shadow}") for left, right in seeds for shadow in ("", "-shadow1")
    )
    assert len(found.other_seed) == 3 + 3


@pytest.mark.parametrize(("data", "one_order"), [("same", True), ("other", False)])
def test_one_seed_of_two_runs_has_one_order_where_both_read_the_same_data(
    tmp_path: Path, data: str, one_order: bool
) -> None:
    runs = [run_of(tmp_path / "one", "r2-s0"), run_of(tmp_path / "other", "r4-s0")]
    for run, fingerprint in zip(runs, ("same", data), strict=True):
        replace(run.record, data={"fingerprint": fingerprint}).save(run.path / "run.json")
    found = study_of(*(RunDirectory(run.path).adapter(arm) for run, arm in zip(runs, ("r2-s0", "r4-s0"), strict=True)))
    assert seeds_of(found) == [(0, 0)] and found.one_order == one_order


def test_arms_of_one_name_in_two_runs_have_siblings_with_distinct_names(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name / "run", *with_shadows("r2-s0", "r2-s1")) for name in ("a@1", "b@2")]
    left, right = with_distinct_names(*(run.adapter("r2-s0") for run in runs))
    paths, found = [str(run.path) for run in runs], study_of(left, right)
    (pair,) = (seed for seed in found.seeds if seed.seeds == (1, 0))
    assert names([pair.pair, *pair.control]) == [
        (f"{paths[0]}/r2-s1{shadow}", f"{paths[1]}/r2-s0{shadow}") for shadow in ("", "-shadow1")
    ]
    assert len(found.seeds) == 2 and len(found.arms) == 4


def test_two_steps_of_an_arm_are_compared_with_two_steps_of_its_shadow(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *with_shadows("r2-s0", "r2-s1"))
    found = study_of(*with_distinct_names(run.adapter("r2-s0", 0), run.adapter("r2-s0", 10)))
    (seed,) = found.seeds  # no other pair asks how one arm changes
    assert names([seed.pair]) == [("r2-s0@0", "r2-s0@10")] and found.one_order
    assert [arm.name for arm in found.arms] == ["r2-s0@0", "r2-s0@10"]
    (control,) = seed.control
    origins = [side.origin for side in (control.left, control.right)]
    assert [(one.arm, one.step) for one in origins if one] == [("r2-s0-shadow1", 0), ("r2-s0-shadow1", 10)]


def test_an_arm_without_a_snapshot_at_the_step_is_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *THREE_SEEDS)
    for arm in ("r4-s1", "r2-s2-shadow1"):
        shutil.rmtree(run.snapshot(arm, 10))
    found = study(run, "r2-s0", "r4-s0", step=10)
    assert sorted(names([seed.pair for seed in found.seeds])) == [
        ("r2-s0", "r4-s2"),
        ("r2-s1", "r4-s0"),
        ("r2-s1", "r4-s2"),
        ("r2-s2", "r4-s0"),
    ]
    assert [seed.pair.left.name for seed in found.seeds if has_only_its_pair(seed)] == ["r2-s2"]
    assert ("r4-s0", "r4-s1") not in names(found.other_seed)
    assert len(study(run, "r2-s0", "r4-s0", step=0).seeds) == 6


def test_folders_outside_of_runs_are_a_pair_without_a_seed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *with_shadows("r2-s0", "r2-s1"))
    folder = load_adapter(write_adapter(tmp_path / "folder", rank=3))
    for left, right in ((folder, folder), (run.adapter("r2-s0"), folder), (folder, run.adapter("r2-s0"))):
        found = study_of(left, right)
        (seed,) = found.seeds
        assert seed.seeds is None and has_only_its_pair(seed) and found.other_seed == []


def test_a_control_has_no_control_pair_and_its_own_seeds(tmp_path: Path) -> None:
    controls = ("r2-s0-random", "r2-s1-random", "r4-s1-random", "r4-s0-random")
    run = run_of(tmp_path / "run", *THREE_SEEDS, *controls)
    found = study(run, "r2-s0-random", "r4-s0-random")
    assert [names([seed.pair]) for seed in found.seeds] == [
        [("r2-s0-random", "r4-s1-random")],
        [("r2-s1-random", "r4-s0-random")],
    ]
    assert all(map(has_only_its_pair, found.seeds))
    assert names([seed.pair for seed in study(run, "r2-s0-random", "r4-s0").seeds]) == [
        (f"r2-s{left}-random", f"r4-s{right}") for left, right in ((0, 1), (0, 2), (1, 0), (1, 2))
    ]


def test_a_shadow_can_be_compared_by_its_name(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *THREE_SEEDS)
    left = find_adapter("r2-s0-shadow1", [run], 10)
    found = study_of(left, run.adapter("r4-s0"))
    assert names([seed.pair for seed in found.seeds]) == [
        (f"r2-s{one}-shadow1", f"r4-s{other}") for one, other in permutations(range(3), 2)
    ]
    assert all(map(has_only_its_pair, found.seeds))
    assert names(found.other_seed[:1]) == [("r2-s0-shadow1", "r2-s1-shadow1")]


def test_arms_of_another_alpha_are_no_seeds(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "r2-s0", "r4-s0", "r2-s1-a32", "r4-s1", "r2-s2", "r4-s2-a32")
    found = study(run, "r2-s0", "r4-s0")
    assert sorted(names([seed.pair for seed in found.seeds])) == [
        ("r2-s0", "r4-s1"),
        ("r2-s2", "r4-s0"),
        ("r2-s2", "r4-s1"),
    ]
    assert names(found.other_seed) == [("r2-s0", "r2-s2"), ("r4-s0", "r4-s1")]


def test_a_shadow_is_never_a_default_a_control_a_seed_a_rank_or_an_arm_with_losses(tmp_path: Path) -> None:
    shadows_first = sorted(with_shadows("r2-s0", "r4-s0", "r8-s0", "r8-s1"), key=lambda name: "shadow" not in name)
    run = run_of(tmp_path / "run", *shadows_first, "r8-s0-shuffled")
    assert default_pair([run], None, None) == ("r4-s0", "r8-s0")
    assert default_pair([run], "r2-s0-shadow1", None) == ("r2-s0-shadow1", "r8-s0")
    subject = AdapterPair(run.adapter("r2-s0"), run.adapter("r8-s0"))
    assert [pairing.right.name for pairing in subject.controls()] == ["r8-s0-shuffled"]
    assert subject.two_seeds().right.name == "r8-s1"
    assert [arm.name for arm in subject.ranks()] == ["r2-s0", "r4-s0", "r8-s0"]
    assert set(losses_of([subject.left]).arm) == {"r2-s0", "r4-s0", "r8-s0", "r8-s1", "r8-s0-shuffled"}
    with pytest.raises(UserError, match="not two to compare"):
        default_pair([run_of(tmp_path / "one", *with_shadows("r2-s0"))], None, None)


def test_a_run_of_one_arm_compares_its_middle_with_its_end(tmp_path: Path) -> None:
    run = run_of(tmp_path / "one", *with_shadows("r2-s0"))
    (last,) = (step for step in run.steps("r2-s0") if step > 0)
    for step in (last + 10, last + 20, last + 30):
        (run.path / "snapshots" / "r2-s0" / f"step-{step:08d}").mkdir()
    assert default_pair([run], None, None) == (f"r2-s0@{last + 10}", "r2-s0")
    assert default_pair([run], None, "r2-s0-shadow1") == ("r2-s0", "r2-s0-shadow1")


def test_a_run_of_one_arm_and_its_shadows_is_that_arm(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *with_shadows("r2-s0"))
    assert find_adapter(str(run.path), [], None).name == "r2-s0"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, pd.DataFrame]:
    """Three seeds, two shadows of left's seed 1 and of right's seed 2, and their pairs; two layers are enough."""
    run = run_of(tmp_path_factory.mktemp("study") / "run", *THREE_SEEDS, "r2-s1-shadow2", "r4-s2-shadow2")
    found = study(run, "r2-s1", "r4-s1")
    pairs = compare_all(list(found.pairings()), ["A", "output"]).pairs
    return found, pairs[pairs.layer <= 2]


def test_the_excess_agrees_with_plain_loops(measured: tuple[Study, pd.DataFrame]) -> None:
    found, pairs = measured
    table, records = excess_of(found, pairs), pairs.to_dict("records")
    assert set(table.columns) == set(columns.EXCESS)
    assert len(table) == 6 * 2 * 2 * 2 * 4

    def beyond_chance(pairings: list[Pairing], layer: int, projection: str, basis: str, measure: str) -> float:
        column, chance = MEASURES[measure]
        values = []
        for pairing in pairings:
            for row in records:
                names_agree = (row["left"], row["right"]) == (pairing.left.name, pairing.right.name)
                if names_agree and (row["layer"], row["projection"], row["basis"]) == (layer, projection, basis):
                    values.append(row[column] - (row[chance] if chance else 0))
        assert len(values) == len(pairings)
        return float(np.mean(values))

    for seed, place in product(found.seeds, product((1, 2), "qv", ("A", "output"), MEASURES)):
        assert seed.seeds is not None
        of_seeds = table.seed_left == seed.seeds[0], table.seed_right == seed.seeds[1]
        chosen = (table[column] == value for column, value in zip(PLACE, place, strict=True))
        (row,) = table[np.logical_and.reduce([*of_seeds, *chosen])].to_dict("records")
        pair, control = beyond_chance([seed.pair], *place), beyond_chance(seed.control, *place)
        expected = {
            "pair": pair,
            "control": control,
            "left_shadow": beyond_chance(seed.left_shadow, *place),
            "right_shadow": beyond_chance(seed.right_shadow, *place),
            "excess": pair - control,
            "other_seed": beyond_chance(found.other_seed, *place),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_without_shadows_and_other_seeds_only_the_pair_is_known(tmp_path: Path) -> None:
    left, right = (load_adapter(write_adapter(tmp_path / str(rank), rank, seed=rank)) for rank in (2, 4))
    found = study_of(left, right)
    table = excess_of(found, compare_all(list(found.pairings()), ["A"]).pairs)
    assert set(table.columns) == set(columns.EXCESS) and table.pair.notna().all()
    unknown = ["seed_left", "seed_right", "control", "left_shadow", "right_shadow", "excess", "other_seed"]
    assert table[unknown].isna().all(axis=None)
    table.to_parquet(tmp_path / "excess.parquet")


def test_an_update_of_zero_has_no_excess_where_it_has_no_direction(tmp_path: Path) -> None:
    found = study(run_of(tmp_path / "run", *with_shadows("r2-s0", "r4-s0")), "r2-s0", "r4-s0", step=0)
    table = excess_of(found, compare_all(list(found.pairings()), ["all"]).pairs)
    known = table.groupby("basis").excess.apply(lambda excess: excess.notna().all())
    assert known.to_dict() == {"A": True, "update": False, "input": False, "output": False}
