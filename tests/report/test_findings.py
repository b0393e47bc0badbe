"""Each finding appears exactly where its condition holds, whichever way the numbers point."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deltaw.maths.seeds import OverSeeds
from deltaw.report.findings import contrast, course, depth, findings
from deltaw.report.learning import Learning
from deltaw.report.levels import Control
from deltaw.report.numbers import Summary
from deltaw.report.sharing import Contrast, Slope, excesses
from deltaw.run.adapter import load_adapter
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run
from tests.support.seeds import single_seeds
from tests.support.summaries import cells, excess_table, raised, summarise, summarise_run

SUSPENDED = "There is no verdict about what learning causes, since not every arm can be said to have learned: "
NO_CONTROL_PAIR = (
    "What low and high share because of what they learned cannot be told without a control pair: arms of the task have "
    "shadows for it (arms.shadows=1)."
)
NOTHING = "Nothing beyond chance: low and high share no direction beyond random subspaces in the basis A."
AT_CHANCE = summarise(cells())
LOW, HIGH = Learning("low", 1.0, 0.1, "token", None), Learning("high", 1.25, 0.2, "token", None)


def spread(seeds: int, sd: float = 0.01) -> list[float]:
    return np.random.default_rng(0).normal(0, sd, seeds).tolist()


def summary(
    shifts: Sequence[float] = (), learning: Sequence[Learning] = (LOW, HIGH), bases: Sequence[str] = ("A", "output")
) -> Summary:
    """Two arms at the level of chance; `shifts` is what they share beyond their control pair, by seed of left."""
    at_chance = replace(AT_CHANCE, learning=list(learning))
    table = excess_table(len(shifts), layers=1, bases=tuple(bases))
    if not shifts:
        return at_chance
    return replace(at_chance, excess=excesses(raised(table, np.array(shifts)[table.seed_left])))


def run_of_three_seeds(path: Path) -> RunDirectory:
    names = [f"r{rank}-s{seed}{shadow}" for seed in range(3) for rank in (2, 4) for shadow in ("", "-shadow1")]
    return RunDirectory(write_run(path, *names))


def plant(run: RunDirectory, seed: int) -> None:
    """Give both ranks of a seed one leading row of A."""
    for arm in (f"r2-s{seed}", f"r4-s{seed}"):
        file = run.snapshot(arm, 10) / "adapter_model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "lora_A" in name:
                tensor[0] = 20 + 20 * torch.arange(tensor.shape[1]).eq(seed)
        save_file(tensors, file)


# What the arms learned


def test_two_arms_that_learned_are_told_with_their_gains() -> None:
    first = findings(summary())[0]
    assert first == (
        "low and high learned: the validation loss fell by 1.00 ± 0.10 and 1.25 ± 0.20 nats a token "
        "(± standard error over the examples)."
    )
    without = [replace(one, se=None) for one in (LOW, HIGH)]
    assert findings(summary(learning=without))[0] == (
        "low and high learned: the validation loss fell by 1.00 and 1.25 nats a token."
    )


def test_more_arms_are_told_by_their_range() -> None:
    found = findings(summary(learning=[LOW, HIGH, replace(LOW, gain=0.5, unit="row")]))[0]
    assert found == (
        "All 3 arms learned: the validation loss fell by 0.50 to 1.25 nats a token, each with a standard error of at "
        "most 0.20 over the examples."
    )


def test_losses_that_are_not_recorded_are_not_guessed() -> None:
    unknown = [replace(one, gain=None, se=None) for one in (LOW, HIGH)]
    first, second, _ = findings(summary(learning=unknown))
    assert first == "Whether low and high learned anything is not known: their validation losses are not recorded."
    assert second == NO_CONTROL_PAIR
    assert findings(summary(learning=[LOW, unknown[1]]))[0] == (
        "Whether high learned anything is not known: no validation loss is recorded."
    )


@pytest.mark.parametrize(
    "doubt",
    [
        "diverged",
        "has a ΔW of 0",
        "has no clear gain (its validation loss went from 4.00 to 4.50)",
        "ended no lower than its control high-shuffled",
    ],
)
@pytest.mark.parametrize("shifts", [(), (0.3,), (0.3, 0.31, 0.29)])
def test_an_arm_in_doubt_suspends_every_verdict_and_is_told_first(doubt: str, shifts: Sequence[float]) -> None:
    found = findings(summary(shifts, learning=[LOW, replace(HIGH, doubt=doubt)]))
    assert found == [f"{SUSPENDED}high {doubt}.", NOTHING]


# What learning causes


@pytest.mark.parametrize(("seeds", "words"), [(1, "One seed is not a test"), (2, "2 seeds are not a test")])
@pytest.mark.parametrize(
    ("shift", "sharing"),
    [
        (
            0.3,
            "more than their control pair, which has nothing to learn, in the bases A, output; the largest difference "
            "is in the basis A, where φ(1, 1) beyond chance is 0.500 for the arms and 0.200 for the control pair.",
        ),
        (0.009, "no more than their control pair, which has nothing to learn, in any basis."),
        (-0.05, "no more than their control pair, which has nothing to learn, in any basis."),
    ],
)
def test_fewer_than_three_seeds_are_no_test(seeds: int, words: str, shift: float, sharing: str) -> None:
    found = findings(summary([shift] * seeds))
    assert found[1] == f"{words} of what learning causes (it takes 3). The arms share {sharing}"
    assert not any(finding.startswith(("Shared because", "Nothing is shown")) for finding in found)


def test_the_largest_difference_is_told_with_its_measure() -> None:
    table = excess_table(1)
    table = raised(table, np.where((table.basis == "output") & (table.measure == "corner"), 0.1, -0.1))
    found = findings(replace(summary(), excess=excesses(table)))
    assert found[1].endswith(
        "in the basis output; the largest difference is in the basis output, where φ of the whole spans beyond chance "
        "is 0.300 for the arms and 0.200 for the control pair."
    )


def test_one_order_of_examples_is_told_where_it_adds_to_what_is_shared() -> None:
    found = findings(replace(summary([0.3]), one_order=True))
    assert "(it takes 3). low and high, of one seed and so of one order of examples, share more than" in found[1]
    assert found[2].endswith("; it does not show what one order of examples adds.")


def test_three_seeds_with_a_planted_excess_show_it() -> None:
    found = findings(summary([0.3, 0.31, 0.29], bases=("A", "input", "output")))
    assert found[1] == (
        "Shared because of what the arms learned, beyond the control pair (3 seeds; 4 tests, at a level of 5% for all "
        "of them together): φ(1, 1) in A, output; φ of the whole spans in A, output."
    )


def test_what_is_not_shown_is_told_beside_what_is() -> None:
    table = excess_table(3)
    in_output = (table.basis == "output") & (table.measure == "first")
    table = raised(table, np.where(in_output, 0.3, np.array(spread(3))[table.seed_left]))
    found = findings(replace(summary(), excess=excesses(table)))
    assert found[1] == (
        "Shared because of what the arms learned, beyond the control pair (3 seeds; 6 tests, at a level of 5% for all "
        "of them together): φ(1, 1) in output. Not shown: φ(1, 1) in A, update; φ of the whole spans in A, update, "
        "output."
    )


@pytest.mark.parametrize("shifts", [(0.01, -0.01, 0.0), (-0.3, -0.31, -0.29), (0.3, 0.0, 0.3)])
def test_three_seeds_without_a_clear_excess_show_nothing(shifts: Sequence[float]) -> None:
    assert findings(summary(shifts))[1] == (
        "Nothing is shown to be shared because of what the arms learned, beyond the control pair (3 seeds; 4 tests, at "
        "a level of 5% for all of them together)."
    )


def test_no_verdict_is_given_without_shadows() -> None:
    assert findings(summary())[1:] == [NO_CONTROL_PAIR, NOTHING]


@pytest.mark.parametrize("shifts", [(0.3,), (0.3, 0.31, 0.29), (0.0, 0.01, -0.01)])
def test_no_verdict_is_given_where_a_loss_is_not_known(shifts: Sequence[float]) -> None:
    found = findings(summary(shifts, learning=[LOW, replace(HIGH, gain=None, se=None)]))
    assert found == ["Whether high learned anything is not known: no validation loss is recorded.", NOTHING]


def test_a_run_without_losses_has_no_verdict(tmp_path: Path) -> None:
    run = run_of_three_seeds(tmp_path / "run")
    for seed in range(3):
        plant(run, seed)
    (run.path / "metrics.csv").unlink()
    first, *others = findings(summarise_run(run.adapter("r2-s0"), run.adapter("r4-s0"), [1]))
    assert first == "Whether r2-s0 and r4-s0 learned anything is not known: their validation losses are not recorded."
    assert len(others) == 1 and others[0].startswith("Beyond random subspaces, whatever the cause")


def test_the_share_of_the_control_pair_is_told_where_the_arms_are_beyond_chance() -> None:
    table = excess_table(1)
    table.loc[table.basis == "output", ["pair", "control"]] = [0.5, 0.1]
    table.loc[table.basis == "update", ["pair", "control"]] = [0.2, -0.1]
    table.loc[table.basis == "A", ["pair", "control"]] = [0.005, 0.3]  # hardly beyond chance
    found = findings(replace(summary(), excess=excesses(table.assign(excess=table.pair - table.control))))
    assert found[2] == (
        "Of φ(1, 1) beyond chance, the control pair alone has 0% in the basis update, 20% in the basis output."
    )
    nowhere = excesses(table.assign(pair=-0.01, excess=-0.31))
    assert not any("the control pair alone" in finding for finding in findings(replace(summary(), excess=nowhere)))


# What is beyond chance


def test_nothing_beyond_chance_is_reported_as_such() -> None:
    assert findings(summary())[-1] == NOTHING


def test_shared_directions_are_counted_whatever_the_cause() -> None:
    assert findings(summarise(cells(), [0.9, 0.8, 0.1, 0.1]))[-1] == (
        "Beyond random subspaces, whatever the cause, low and high share 2.0 directions per site in the basis A, with "
        "a mean cos² of 0.85."
    )


def test_phi_beyond_chance_is_not_called_nothing_where_k_star_finds_no_direction() -> None:
    phi = cells()
    phi.loc[phi.i == 1, "phi"] = 0.9
    assert findings(summarise(phi))[-1] == (
        "k_star finds no direction that low and high share in the basis A; φ(1, 1) or φ of the whole spans is beyond "
        "random subspaces at some sites."
    )


def test_without_any_direction_nothing_can_be_compared() -> None:
    empty = summarise(cells().assign(phi=np.nan))
    assert findings(empty)[-1] == "Nothing can be compared: in no basis do both low and high have a direction."


def test_a_control_whose_loss_rose_is_named() -> None:
    controls = [Control("high-random", "random", None, True, []), Control("high-frozen_a", "frozen_a", 0.5, False, [])]
    assert findings(replace(summary(), controls=controls))[-1] == (
        "The validation loss of high-random rose above the base's: such a control supports no verdict."
    )
    assert findings(replace(summary(), controls=controls[1:])) == findings(summary())


def test_there_are_at_most_six_findings() -> None:
    learnings = [[LOW, HIGH], [LOW, replace(HIGH, doubt="diverged")], [LOW, replace(HIGH, gain=None)]]
    controls = [[], [Control("high-random", "random", None, True, [])]]
    shifts = [(), (0.3,), (0.3, 0.31, 0.29), (0.0, 0.1, -0.1)]
    for learning, of_seeds, risen in product(learnings, shifts, controls):
        found = findings(replace(summary(of_seeds, learning), controls=risen))
        assert 2 <= len(found) <= 6 and not any("None" in sentence or "nan" in sentence for sentence in found)


# Runs


def test_a_run_of_three_seeds_shows_what_is_planted_in_all_of_them(tmp_path: Path) -> None:
    run = run_of_three_seeds(tmp_path / "run")
    pair = run.adapter("r2-s0"), run.adapter("r4-s0")
    assert findings(summarise_run(*pair, [1]))[1].startswith("Nothing is shown to be shared")
    for seed in range(3):
        plant(run, seed)
    found = findings(summarise_run(*pair, [1]))
    assert found[0].startswith("All 6 arms learned")
    assert found[1].startswith("Shared because of what the arms learned, beyond the control pair (3 seeds; 6")
    assert "φ(1, 1) in A" in found[1]


def test_an_untrained_run_is_called_untrained(tmp_path: Path) -> None:
    run = run_of_three_seeds(tmp_path / "run")
    found = findings(summarise_run(run.adapter("r2-s0", 0), run.adapter("r4-s0", 0), [1]))
    reasons = found[0].removeprefix(SUSPENDED).removesuffix(".").split("; ")
    assert sorted(reasons) == [f"r{rank}-s{seed} has a ΔW of 0" for rank in (2, 4) for seed in range(3)]
    assert len(found) == 2 and "(after step 0)" in found[1]


def test_two_identical_adapters_share_all(tmp_path: Path) -> None:
    one, two = (load_adapter(write_adapter(tmp_path / name, rank=3)) for name in ("one", "two"))
    found = findings(summarise_run(one, two, [1], "A"))
    assert len(found) == 3
    assert "share 3.0 directions per site in the basis A, with a mean cos² of 1.00." in found[-1]


def test_one_layer_can_be_summarised(tmp_path: Path) -> None:
    pair = [load_adapter(write_adapter(tmp_path / str(rank), rank, layers=1, seed=rank)) for rank in (2, 4)]
    found = summarise_run(pair[0], pair[1], [1])
    assert len(findings(found)) == 3
    assert depth(found.depth) == "1 layer cannot show a trend over depth."


# φ(i, r), depth and projections, which stand beside tables


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (0.6, "φ(i, 8) rises from 0.500 at i = 1 to 0.600 at i = 4"),
        (0.505, "φ(i, 8) hardly changes, from 0.500 at i = 1 to 0.505 at i = 4"),
        (0.2, "φ(i, 8) falls from 0.500 at i = 1 to 0.200 at i = 4, and half of its lead over chance is gone by i = 3"),
    ],
)
def test_the_course_over_i_has_its_own_direction(last: float, words: str) -> None:
    phi = cells()
    phi["phi"] = 0.5 + (last - 0.5) * (phi.i - 1) / 3
    assert course(summarise(phi)) == [words]


def test_chance_alone_has_no_course() -> None:
    assert course(summarise(cells())) == []


def test_a_planted_slope_is_found_with_three_seeds() -> None:
    found = Slope(8, "the control pair", single_seeds([0.2, 0.21, 0.19]))
    assert depth(found) == (
        "There is a trend over depth (two-sided, 5%): from the first of 8 layers to the last, φ of the whole spans "
        "beyond the control pair changes by 0.200 ± 0.006 along a straight line (3 seeds)."
    )


def test_no_slope_is_not_resolved_and_says_which_one_would_have_been() -> None:
    slopes = single_seeds([0.1, -0.12, 0.01])
    assert depth(Slope(8, "chance", slopes)) == (
        "A trend over depth is not resolved: from the first of 8 layers to the last, φ of the whole spans beyond "
        "chance changes by −0.003 ± 0.064 along a straight line (3 seeds). "
        f"A change of about {slopes.detectable():.3f} would have been found in 80% of cases (two-sided, 5%)."
    )


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (None, "No site has directions in this basis."),
        (Slope(2, "chance", None), "2 layers cannot show a trend over depth."),
        (Slope(8, "chance", single_seeds([0.1])), "changes by 0.100 along a straight line, and one seed is no test."),
        (
            Slope(8, "chance", single_seeds([0.1, 0.2])),
            "changes by 0.150 along a straight line, and 2 seeds are no test",
        ),
    ],
)
def test_too_little_shows_no_trend(slope: Slope | None, words: str) -> None:
    assert words in depth(slope)


def q_against_v(over: OverSeeds, control: float | None = -0.05) -> str:
    beyond = "chance" if control is None else "the control pair"
    return contrast(Contrast("q", "v", beyond, -0.1, control, over))


def test_q_against_v_stands_beside_the_control_pairs() -> None:
    words = (
        "φ of the whole spans beyond the control pair, ΔW_q minus ΔW_v, is −0.050 (−0.100 minus −0.050 of the control "
        "pair)"
    )
    assert q_against_v(single_seeds([-0.05, -0.04, -0.06])) == (
        f"{words} ± 0.006 over 3 seeds: this is resolved (two-sided, 5%)."
    )
    assert q_against_v(single_seeds([-0.05, 0.1, -0.2])).endswith("over 3 seeds: this is not resolved (two-sided, 5%).")
    assert q_against_v(single_seeds([-0.05])) == f"{words}; one seed is no test."
    assert q_against_v(single_seeds([-0.05, -0.05])) == f"{words}; 2 seeds are no test."
    assert q_against_v(single_seeds([-0.1]), control=None) == (
        "φ of the whole spans beyond chance, ΔW_q minus ΔW_v, is −0.100; one seed is no test."
    )
    assert contrast(None) == ""
