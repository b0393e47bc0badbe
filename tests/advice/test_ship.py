"""Which cut to ship, on arms whose need is known."""

from pathlib import Path

import numpy as np
import pytest

from deltaw.advice.advise import advice_of
from deltaw.advice.answer import Ship
from deltaw.advice.judged import Judged, JudgedArm
from deltaw.advice.ship import ship_of
from tests.support.folders import arm_record
from tests.support.judged import STEP, Examples, Losses, Measured, write_judged

CUTS = (32, 16, 8, 4, 2, 1)


def needing(directions: int, examples: Examples, gain: float = 2.0, noise: float = 0.003) -> Measured:
    """An arm whose cuts lose a tenth of the gain where they have fewer directions, and nothing where they have not."""
    uncut = examples.arm(gain)
    cost = {cut: 0.1 * gain if cut < directions else 0.0 for cut in CUTS}
    return Measured(uncut, cuts={cut: examples.arm(-cost[cut], noise, of=uncut) for cut in CUTS})


def shipped(path: Path, arms: dict[str, Measured], examples: Examples, margin: float = 0.01) -> Ship | None:
    return advice_of([write_judged(path, examples, arms)], margin).ship


@pytest.mark.parametrize("seed", range(3))
def test_an_arm_that_needs_four_directions_is_cut_to_four(tmp_path: Path, seed: int) -> None:
    examples = Examples(seed=seed)
    found = shipped(tmp_path / "x", {"r64-s0": needing(4, examples)}, examples)
    assert found is not None and found.ship is not None
    assert (found.arm, found.rank, found.ship.cut, found.ship.parameters) == ("r64-s0", 64, 4, 4 / 64)
    assert found.ship.kept == pytest.approx(1, abs=1e-3) and 0.99 <= found.ship.kept_at_least <= found.ship.kept
    assert [cut.passes for cut in found.cuts] == [True] * 4 + [False] * 2
    assert all(cut.kept_at_most < 0.99 and cut.needed is None for cut in found.cuts[4:])  # shown to be worse


def test_an_arm_that_needs_all_directions_is_not_cut(tmp_path: Path) -> None:
    examples = Examples()
    advice = advice_of([write_judged(tmp_path / "x", examples, {"r64-s0": needing(64, examples)})], 0.01)
    assert advice.ship is not None and advice.ship.ship is None
    assert all(cut.needed is None for cut in advice.ship.cuts)
    assert not any("too few" in remark for remark in advice.remarks)


@pytest.mark.parametrize(
    ("of_small", "better"),
    [(2.2, "r8-s0"), (2.0, None), (2.01, None), (1.8, None)],
    ids=["better", "equal", "better by less than the margin", "worse"],
)
def test_an_arm_of_a_smaller_rank_that_is_better_by_more_than_the_margin_is_shipped_instead(
    tmp_path: Path, of_small: float, better: str | None
) -> None:
    examples = Examples()
    small = Measured(examples.arm(of_small, exact=True), validation=2 - of_small / 2.001)
    arms = {"r8-s0": small, "r64-s0": needing(4, examples)}
    arms["r64-s0"].validation = 1.0
    found = shipped(tmp_path / "x", arms, examples)
    assert found is not None and (found.arm, found.better) == ("r64-s0", better)


def test_a_cut_that_passes_alone_does_not_pass_below_one_that_fails(tmp_path: Path) -> None:
    examples = Examples()
    arm = needing(1, examples)
    arm.cuts = {**arm.cuts, 8: examples.arm(-0.3, of=arm.uncut)}
    found = shipped(tmp_path / "x", {"r64-s0": arm}, examples)
    assert found is not None and found.ship is not None and found.ship.cut == 16
    assert [cut.cut for cut in found.cuts if cut.kept_at_least >= 0.99] == [32, 16, 4, 2, 1]
    assert [cut.cut for cut in found.cuts if cut.passes] == [32, 16]


def test_an_equal_cut_keeps_all_of_the_gain_and_no_more(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    found = shipped(tmp_path / "x", {"r64-s0": Measured(uncut, cuts=dict.fromkeys(CUTS, uncut))}, examples)
    assert found is not None and found.ship is not None
    assert (found.ship.cut, found.ship.kept, found.ship.kept_at_least) == (1, 1, 1)


def test_the_number_that_is_needed_decides_in_most_cases(tmp_path: Path) -> None:
    def arm(examples: Examples) -> Measured:
        uncut = examples.arm(2.0)
        return Measured(
            uncut, cuts={32: examples.arm(-0.01, 0.2, of=uncut, exact=examples.count == 64)}
        )  # half of the margin

    few = Examples(count=64)
    advice = advice_of([write_judged(tmp_path / "x", few, {"r64-s0": arm(few)})], 0.01)
    assert advice.ship is not None and advice.ship.ship is None
    needed = advice.ship.cuts[0].needed
    assert needed is not None and needed > 64
    assert advice.remarks[0].startswith("64 judged examples are too few") and f"{needed:,}" in advice.remarks[0]
    # the closed form, from the true values: (z.95 + z.80)² · variance of the contrast / its square
    true = 2.49**2 * 0.2**2 / 0.01**2
    count = int(1.3 * true)
    passed = []
    for seed in range(20):
        many = Examples(count=count, seed=seed)
        found = shipped(tmp_path / f"many{seed}", {"r64-s0": arm(many)}, many)
        passed.append(found is not None and found.ship is not None)
    assert np.mean(passed) >= 0.7


def test_groups_of_equal_examples_count_once(tmp_path: Path) -> None:
    examples = Examples(count=100)
    arm = needing(4, examples, noise=0.05)
    twice = Examples(count=200)
    twice.labels, twice.base = np.tile(examples.labels, 2), np.tile(examples.base, 2)

    def doubled(losses: Losses) -> Losses:
        return np.tile(losses, 2)

    again = Measured(doubled(arm.uncut), cuts={cut: doubled(losses) for cut, losses in arm.cuts.items()})
    groups = np.tile(np.arange(100), 2)
    one = advice_of([write_judged(tmp_path / "one", examples, {"r64-s0": arm})], 0.01)
    two = advice_of([write_judged(tmp_path / "two", twice, {"r64-s0": again}, groups=groups)], 0.01)
    assert two.evidence is not None and (two.evidence.judged, two.evidence.clusters) == (200, 100)
    assert one.ship is not None and two.ship is not None
    for left, right in zip(one.ship.cuts, two.ship.cuts, strict=True):
        assert (left.cost, left.se, left.kept_at_least) == pytest.approx((right.cost, right.se, right.kept_at_least))


def test_the_best_arm_on_validation_is_cut_not_the_best_on_judged(tmp_path: Path) -> None:
    examples = Examples()
    better, chosen = needing(4, examples, gain=2.5), needing(16, examples, gain=2.0)
    better.validation, chosen.validation = 1.2, 1.1
    found = shipped(tmp_path / "x", {"r64-s0": better, "r64-s1": chosen, "r8-s0": needing(1, examples)}, examples)
    assert found is not None and found.ship is not None and (found.arm, found.ship.cut) == ("r64-s1", 16)


def test_the_recipe_is_chosen_by_the_mean_over_its_seeds(tmp_path: Path) -> None:
    examples = Examples()
    lucky = {"r64-s0-lr0.1": 0.9, "r64-s1-lr0.1": 2.0, "r64-s0-lr0.01": 1.2, "r64-s1-lr0.01": 1.1}
    arms = {name: needing(4, examples) for name in lucky}
    for name, loss in lucky.items():
        arms[name].validation = loss
    found = shipped(tmp_path / "x", arms, examples)
    assert found is not None and (found.arm, found.seeds) == ("r64-s1-lr0.01", [1])


def test_equal_arms_are_taken_in_the_order_of_the_config(tmp_path: Path) -> None:
    examples = Examples()
    found = shipped(tmp_path / "x", {f"r64-s{seed}": needing(4, examples) for seed in (3, 1, 2)}, examples)
    assert found is not None and found.arm == "r64-s3"


def test_three_seeds_make_a_statement_about_the_recipe_and_two_do_not(tmp_path: Path) -> None:
    examples = Examples()
    arms = {f"r64-s{seed}": needing(4, examples) for seed in range(3)}
    three = advice_of([write_judged(tmp_path / "three", examples, arms)], 0.01)
    two = advice_of([write_judged(tmp_path / "two", examples, dict(list(arms.items())[:2]))], 0.01)
    assert three.recipe is not None and three.recipe.ship is not None
    assert (three.recipe.ship.cut, three.recipe.seeds) == (4, [0, 1, 2])
    assert two.recipe is None and two.ship is not None


def test_seeds_that_need_different_ranks_give_a_recipe_with_a_wider_limit(tmp_path: Path) -> None:
    examples = Examples()
    arms = {f"r64-s{seed}": needing(need, examples) for seed, need in enumerate((4, 4, 32))}
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.ship is not None and advice.ship.ship is not None and advice.ship.ship.cut == 4
    assert advice.recipe is not None and advice.recipe.ship is not None and advice.recipe.ship.cut == 32
    at_16 = advice.recipe.cuts[1]
    assert at_16.kept == pytest.approx(1 - 0.1 / 3, abs=0.01) and at_16.kept_at_least < 0.9


def test_a_cut_with_a_loss_that_is_not_finite_ends_the_sequence(tmp_path: Path) -> None:
    examples = Examples()
    arm = needing(1, examples)
    arm.cuts = {**arm.cuts, 8: np.full(examples.count, np.nan)}
    found = shipped(tmp_path / "x", {"r64-s0": arm}, examples)
    assert found is not None and [cut.cut for cut in found.cuts] == [32, 16]


def test_a_recipe_of_which_a_seed_diverged_is_not_the_best(tmp_path: Path) -> None:
    examples = Examples()
    arms = {f"r64-s{seed}-lr{lr}": needing(4, examples) for lr in ("0.1", "0.01") for seed in (0, 1)}
    for name, loss in zip(arms, (0.9, np.nan, 1.2, 1.1), strict=True):
        arms[name].validation = loss
    assert (found := shipped(tmp_path / "x", arms, examples)) is not None and found.arm == "r64-s1-lr0.01"


def test_a_larger_margin_never_asks_for_a_larger_cut(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    arm = Measured(uncut, cuts={cut: examples.arm(-0.2 / cut, 0.02, of=uncut) for cut in CUTS})
    run = write_judged(tmp_path / "x", examples, {"r64-s0": arm})
    found = [advice_of([run], margin).ship for margin in (0.002, 0.005, 0.01, 0.02, 0.05, 0.2)]
    cuts = [one.ship.cut if one and one.ship else 64 for one in found]
    assert cuts == sorted(cuts, reverse=True) and len(set(cuts)) > 3


def test_a_recipe_whose_cost_is_exactly_the_margin_is_rarely_cut(tmp_path: Path) -> None:
    run = write_judged(tmp_path / "x", Examples(), {"r64-s0": Measured(Examples().arm(2.0))})
    shipped = []
    for draw in range(150):
        examples = Examples(count=100, seed=draw)
        common, arms = examples.arm(2.0), []
        for seed in range(3):
            uncut = examples.arm(0.0, 0.1, of=common)
            cut = examples.arm(-0.02 + 0.01 * float(examples.draw.standard_normal()), 0.05, of=uncut)
            record = arm_record(f"r64-s{seed}")
            arms.append(JudgedArm(record["name"], run, record, 1.0, examples.base, uncut, {8: cut}))  # type: ignore[arg-type]
        judged = Judged(arms, examples.labels, np.arange(examples.count), STEP, len(arms))
        found = ship_of(judged, arms, 0.01)
        shipped.append(found is not None and found.ship is not None)
    assert np.mean(shipped) <= 0.09  # 5 % but for 150 draws
