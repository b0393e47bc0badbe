"""Which rank to train, on arms whose costs are known."""

import shlex
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from deltaw.advice.advise import advice_of
from deltaw.advice.answer import Train
from deltaw.advice.command import Settling
from deltaw.advice.judged import Judged, JudgedArm, judged_of, judged_rows
from deltaw.advice.recipes import recipes_of
from deltaw.advice.train import MOST_SEEDS, train_of
from deltaw.commands.plan import plan_table
from deltaw.commands.train import named_arms
from deltaw.config.command_line import for_hydra
from deltaw.config.folder import CONF
from deltaw.config.schema import TrainConfig, register
from tests.support.folders import arm_record
from tests.support.judged import STEP, Examples, Measured, write_judged

SEEDS = range(3)


def arms_of(
    examples: Examples,
    gains: dict[int, float],
    seeds: range = SEEDS,
    lr: str = "",
    spread: float = 0.002,
    noise: float = 0.02,
) -> dict[str, Measured]:
    """Arms with these gains by rank, whose losses differ by seed with this standard deviation; validation agrees."""
    common = examples.arm(0.0)
    arms = {}
    for rank, gain in gains.items():
        for seed in seeds:
            own = gain + spread * float(examples.draw.standard_normal())
            arms[f"r{rank}-s{seed}{lr}"] = Measured(examples.arm(own, noise, of=common), validation=4 - gain)
    return arms


def trained(path: Path, examples: Examples, arms: dict[str, Measured], margin: float = 0.01) -> Train:
    found = advice_of([write_judged(path, examples, arms)], margin).train
    assert found is not None
    return found


def test_the_smallest_rank_that_costs_nothing_is_enough(tmp_path: Path) -> None:
    examples = Examples()
    found = trained(tmp_path / "x", examples, arms_of(examples, {1: 1.5, 4: 1.999, 8: 2.0, 64: 2.004}))
    assert (found.reference, found.rank, found.missing, found.command) == (64, 4, None, None)
    one, _, eight, reference = found.ranks
    assert [row.rank for row in found.ranks] == [1, 4, 8, 64]
    assert [row.enough for row in found.ranks] == [False, True, True, True]
    assert one.cost == pytest.approx(0.25, abs=0.01) and one.cost_at_least is not None and one.cost_at_least > 0.2
    assert eight.cost_at_most is not None and eight.cost < eight.cost_at_most <= 0.01
    assert (reference.cost, reference.cost_at_least, reference.cost_at_most) == (0, None, None)


def test_the_reference_is_the_answer_where_the_next_rank_is_worse(tmp_path: Path) -> None:
    examples = Examples()
    found = trained(tmp_path / "x", examples, arms_of(examples, {1: 2.0, 8: 1.8, 64: 2.1}))
    assert (found.reference, found.rank, found.command, found.seeds_needed) == (64, 64, None, None)
    assert not found.ranks[0].enough  # the sequence has stopped at 8


def test_the_reference_is_the_rank_that_validates_best_and_larger_ranks_are_no_candidates(tmp_path: Path) -> None:
    examples = Examples()
    found = trained(tmp_path / "x", examples, arms_of(examples, {8: 2.1, 64: 2.09}))
    assert (found.reference, found.rank) == (8, 8)
    assert [row.enough for row in found.ranks] == [True, False]


def test_seeds_that_differ_much_leave_it_undecided_and_the_command_would_decide(tmp_path: Path) -> None:
    examples = Examples()
    found = trained(tmp_path / "x", examples, arms_of(examples, {8: 1.999, 64: 2.0}, spread=0.015))
    assert (found.rank, found.missing) == (None, None)
    assert found.seeds_needed is not None and 10 < found.seeds_needed <= MOST_SEEDS
    assert found.judged_needed is not None and found.judged_needed >= examples.count
    assert found.command is None  # the run does not tell its data
    assert found.times is not None and found.times > 3


@pytest.mark.parametrize("seed", range(3))
def test_equal_arms_are_never_shown_to_differ(tmp_path: Path, seed: int) -> None:
    examples = Examples(seed=seed)
    common = examples.arm(2.0)
    arms = {f"r{rank}-s{number}": Measured(common) for rank in (8, 64) for number in SEEDS}
    found = trained(tmp_path / "x", examples, arms)
    assert (found.reference, found.rank) == (8, 8)
    assert all(row.cost == 0 and (row.cost_at_least or 0) <= 0 for row in found.ranks)


def test_half_of_the_variance_comes_from_each(tmp_path: Path) -> None:
    examples = Examples(count=300)
    arms = arms_of(examples, {8: 1.999, 64: 2.0}, spread=0.03, noise=0.3)
    found = trained(tmp_path / "x", examples, arms)
    assert found.seeds_needed is not None and found.judged_needed is not None and found.reference is not None
    gain = {row.rank: row.loss for row in found.ranks}
    base = float(examples.base.sum() / examples.labels.sum())
    delta = 0.01 * (base - gain[found.reference])
    means = {name: float(arm.uncut.sum() / examples.labels.sum()) for name, arm in arms.items()}
    pooled = np.mean([np.var([means[f"r{rank}-s{seed}"] for seed in SEEDS], ddof=1) for rank in (8, 64)])
    of_seeds = pooled * (1 + 0.99**2) / found.seeds_needed
    assert of_seeds == pytest.approx((delta / 2.486) ** 2 / 2, rel=0.05)
    difference = np.mean([arms[f"r8-s{s}"].uncut - arms[f"r64-s{s}"].uncut for s in SEEDS], axis=0) / examples.labels
    of_examples = difference.var() / found.judged_needed
    assert of_examples == pytest.approx(of_seeds, rel=0.3)  # up to the weights of the examples


def test_ranks_that_cannot_be_compared_are_not_said_to_be_untrained(tmp_path: Path) -> None:
    examples = Examples()
    arms = arms_of(examples, {8: 2.0}) | {"r64-s0": Measured(np.full(examples.count, np.nan))}
    missing = str(trained(tmp_path / "x", examples, arms).missing)
    assert missing.startswith("Only r=8 can be compared: arms that diverged") and "was trained" not in missing


@pytest.mark.parametrize(
    ("gains", "seeds", "words"),
    [
        ({8: 2.0, 64: 2.0}, range(1), "every rank has 1 seed: train with arms.seeds=[0,1,2]."),
        ({8: 2.0, 64: 2.0}, range(2), "every rank has 2 seeds: train with arms.seeds=[0,1,2]."),
        ({64: 2.0}, range(3), "Only r=64 was trained."),
    ],
)
def test_too_few_seeds_or_ranks_are_told(tmp_path: Path, gains: dict[int, float], seeds: range, words: str) -> None:
    examples = Examples()
    found = trained(tmp_path / "x", examples, arms_of(examples, gains, seeds))
    assert found.missing is not None and words in found.missing
    assert (found.rank, found.command, found.reference) == (
        None,
        None,
        found.ranks[-1].rank if len(gains) == 1 else found.reference,
    )
    assert all(row.cost_at_most is None for row in found.ranks)


def test_ranks_with_different_numbers_of_seeds_are_named(tmp_path: Path) -> None:
    examples = Examples()
    arms = arms_of(examples, {8: 2.0}) | arms_of(examples, {64: 2.0}, range(1))
    found = trained(tmp_path / "x", examples, arms)
    assert found.missing is not None and "r=8 has 3 seeds, r=64 has 1 seed" in found.missing


def test_a_rank_with_too_few_seeds_is_left_out_where_others_have_enough(tmp_path: Path) -> None:
    examples = Examples()
    arms = arms_of(examples, {4: 1.999, 64: 2.0}) | arms_of(examples, {16: 2.2}, range(1))
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.train is not None and (advice.train.reference, advice.train.rank) == (64, 4)
    assert "r=16 has 1 seed of the 3 that a rank takes, and is not compared." in advice.remarks


def test_each_rank_stands_at_its_own_best_rate_and_an_edge_is_told(tmp_path: Path) -> None:
    examples = Examples()
    arms: dict[str, Measured] = {}
    for lr, gains in {"0.001": {8: 1.0, 64: 2.0}, "0.01": {8: 2.0, 64: 1.5}, "0.1": {8: 1.5, 64: 1.0}}.items():
        arms |= arms_of(examples, gains, lr=f"-lr{lr}")
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.train is not None
    assert [(row.rank, row.lr, row.lrs) for row in advice.train.ranks] == [
        (8, 0.01, [0.001, 0.01, 0.1]),
        (64, 0.001, [0.001, 0.01, 0.1]),
    ]
    assert any("r=64, 0.001, is the smallest" in remark for remark in advice.remarks)
    assert not any("r=8, 0.01, is" in remark for remark in advice.remarks)


def test_one_rate_and_one_scale_are_told(tmp_path: Path) -> None:
    examples = Examples()
    advice = advice_of([write_judged(tmp_path / "x", examples, arms_of(examples, {8: 2.0, 64: 2.0}))], 0.01)
    assert advice.train is not None and advice.train.scales == ["alpha/r with alpha 16"]
    assert any(remark.startswith("Only one learning rate was tried at r=8 and r=64") for remark in advice.remarks)
    assert any(remark.startswith("Only one scale was tried") for remark in advice.remarks)


def test_ranks_without_a_gain_have_no_shares(tmp_path: Path) -> None:
    examples = Examples()
    arms = arms_of(examples, {8: -1.0, 64: -1.0}) | {"r4-s0": Measured(examples.arm(2.0), validation=9.0)}
    arms |= {f"r4-s{seed}": Measured(examples.arm(2.0), validation=9.0) for seed in (1, 2)}
    found = trained(tmp_path / "x", examples, arms)
    assert found.missing is not None and "no clear gain" in found.missing and found.ranks == []


def undecided(path: Path, typed: list[str], *unknown: str) -> tuple[Train, dict[str, dict[str, object]]]:
    """What is advised after a run of these words that leaves the rank undecided, and its config.

    Args:
        path: of the run.
        typed: words of its `deltaw train`, as Hydra reads them.
        unknown: keys of the section `model` that its config lacks, as if an older version had written it.
    """
    examples = Examples()
    config = composed(typed)
    older = deepcopy(config)
    for key in unknown:
        del older["model"][key]
    run = write_judged(path, examples, arms_of(examples, {8: 1.999, 64: 2.0}, spread=0.015), config=older)
    train = advice_of([run], 0.01).train
    assert train is not None
    return train, config


@pytest.mark.usefixtures("hydra_reads_conf")
def test_the_command_is_one_that_deltaw_takes_and_keeps_the_settings(tmp_path: Path) -> None:
    typed = ["model=hub", "model.path=/some/base", "data=jsonl", "data.path=/my data/x.jsonl", "data.judged=400"]
    typed += ["arms.ranks=[8,64]", "arms.seeds=[0,1,2]", "optim.warmup=0.1", "trainer.max_steps=10", "run.name=mine"]
    train, config = undecided(tmp_path / "mine", for_hydra(typed, TrainConfig), "compile")
    assert train.command is not None and train.seeds_needed is not None
    jobs = [composed(words) for words in jobs_of(train.command)]
    assert [job["arms"]["seeds"] for job in jobs] == [[seed] for seed in range(train.seeds_needed)]
    for job in jobs:
        assert job["arms"]["ranks"] == [8, 64]
        assert job["arms"]["lrs"] == [0.00067, 0.002, 0.006]
        assert (job["run"]["name"], job["run"]["suffix"]) == (None, f"-judged{train.judged_needed}")
        for section in ("model", "optim", "trainer", "snapshots", "metrics"):
            assert job[section] == config[section]
        assert job["data"] == {**config["data"], "judged": train.judged_needed}


@pytest.mark.usefixtures("hydra_reads_conf")
def test_each_run_of_the_command_can_be_planned_and_holds_the_arms_of_one_seed(tmp_path: Path) -> None:
    train, _ = undecided(tmp_path / "x", ["data.judged=400", "trainer.accelerator=cpu", "trainer.max_steps=10"])
    assert train.command is not None and train.arms_of_a_seed == 6
    names = set()
    for words in jobs_of(train.command):
        config = compose("train", words)
        assert len(named_arms(config)) == train.arms_of_a_seed
        names.add(config.run.name)
    assert len(names) == train.seeds_needed
    assert "6 arms" in plan_table(config)


def test_the_best_rate_is_tried_again_as_it_was_with_its_neighbours(tmp_path: Path) -> None:
    examples = Examples(count=50)
    arms = {f"r{rank}-s0-lr{lr}": Measured(examples.arm(2.0)) for rank in (8, 64) for lr in ("0.00125", "0.00333")}
    run = write_judged(tmp_path / "x", examples, arms)
    recipes = recipes_of(judged_of([run], [judged_rows(run)]).task)
    settling = Settling([recipes[0], recipes[3]], {rank: [0.00125, 0.00333] for rank in (8, 64)}, 3, 50)
    assert settling.rates == [0.00042, 0.00125, 0.00333, 0.01]


@pytest.fixture
def hydra_reads_conf() -> Iterator[None]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def jobs_of(command: str) -> list[list[str]]:
    """The words of each job that Hydra makes of a sweep, as Hydra reads them."""
    program, name, *words = shlex.split(command)
    flag, *overrides = for_hydra(words, TrainConfig)
    assert (program, name, flag) == ("deltaw", "train", "-m")
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    return jobs


def composed(words: list[str]) -> dict[str, dict[str, object]]:
    """The config that `deltaw train` makes of these words, as a run keeps it."""
    config = compose("train", words)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def test_runs_of_one_experiment_are_used_together(tmp_path: Path) -> None:
    examples = Examples()
    arms = arms_of(examples, {8: 1.999, 64: 2.0})
    of_seeds = [{name: arm for name, arm in arms.items() if f"-s{seed}" in name} for seed in SEEDS]
    runs = [write_judged(tmp_path / f"s{seed}", examples, of_seed) for seed, of_seed in enumerate(of_seeds)]
    together = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    pooled = advice_of(runs, 0.01)
    assert together.train is not None and pooled.train is not None and pooled.evidence is not None
    assert pooled.evidence.runs == ["s0", "s1", "s2"]
    assert pooled.train.rank == together.train.rank == 8
    assert [row.cost_at_most for row in pooled.train.ranks] == [row.cost_at_most for row in together.train.ranks]


def test_a_cost_of_exactly_the_margin_is_rarely_called_enough(tmp_path: Path) -> None:
    truth = {8: 0.99 * 2.0, 64: 2.0}
    run = write_judged(tmp_path / "x", Examples(), arms_of(Examples(), truth))
    called = []
    for draw in range(150):
        examples = Examples(count=150, seed=draw)
        arms = [
            JudgedArm(name, run, arm_record(name), arm.validation, examples.base, arm.uncut)  # type: ignore[arg-type]
            for name, arm in arms_of(examples, truth, spread=0.01).items()
        ]
        judged = Judged(arms, examples.labels, np.arange(examples.count), STEP, len(arms))
        found = train_of(judged, 0.01)
        assert found is not None and found.reference == 64
        called.append(found.rank == 8)
    assert np.mean(called) <= 0.09  # 5 % but for 150 draws


def test_equal_ranks_are_rarely_said_to_cost_more_although_the_luckiest_is_the_reference(tmp_path: Path) -> None:
    """Five ranks, seeds that differ by more than the margin, and a validation that sees the luck of the seeds."""
    ranks = (4, 8, 16, 32, 64)
    run = write_judged(tmp_path / "x", Examples(), arms_of(Examples(), dict.fromkeys(ranks, 2.0)))
    called = []
    for draw in range(100):
        examples, arms = Examples(count=60, seed=draw), []
        common = examples.arm(2.0)
        for name in (f"r{rank}-s{seed}" for rank in ranks for seed in SEEDS):
            luck = 0.1 * float(examples.draw.standard_normal())
            uncut = examples.arm(luck, 0.02, of=common)
            arms.append(JudgedArm(name, run, arm_record(name), 2 - luck, examples.base, uncut))  # type: ignore[arg-type]
        found = train_of(Judged(arms, examples.labels, np.arange(60), STEP, len(arms)), 0.01)
        assert found is not None and len(found.ranks) == 5
        called.append(any(row.cost_at_least is not None and row.cost_at_least > 0.01 for row in found.ranks))
    assert np.mean(called) <= 0.1  # 5 % but for 100 draws


def test_more_seeds_than_one_would_train_are_told_without_a_command(tmp_path: Path) -> None:
    examples = Examples()
    arms = arms_of(examples, {8: 1.999, 64: 2.0}, spread=0.03)
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.train is not None and advice.train.seeds_needed is not None
    assert advice.train.seeds_needed > MOST_SEEDS
    assert (advice.train.command, advice.train.times) == (None, None)
    assert any("more than 32 seeds of each rank" in remark for remark in advice.remarks)


def test_what_the_data_set_cannot_give_is_told(tmp_path: Path) -> None:
    examples = Examples(count=100)
    arms = arms_of(examples, {8: 1.999, 64: 2.0}, noise=2.0)
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.train is not None and advice.train.judged_needed is not None
    assert advice.train.judged_needed > 100 + 2000 // 2
    assert (advice.train.command, advice.train.times) == (None, None)
    assert any("more judged examples than the 1,100 that the data set can give" in one for one in advice.remarks)
