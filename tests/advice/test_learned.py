"""Whether arms learned, against their controls and nothing."""

from pathlib import Path

import numpy as np

from deltaw.advice.advise import advice_of
from deltaw.advice.answer import Learned
from tests.support.judged import Examples, Measured, write_judged


def learned(path: Path, examples: Examples, arms: dict[str, Measured]) -> dict[str, Learned]:
    return {one.arm: one for one in advice_of([write_judged(path, examples, arms)], 0.01).learned}


def test_an_arm_that_gains_more_than_its_controls_has_learned(tmp_path: Path) -> None:
    examples = Examples()
    arms = {"r8-s0": Measured(examples.arm(2.0)), "r8-s0-shuffled": Measured(examples.arm(0.5))}
    found = learned(tmp_path / "x", examples, arms)
    assert found["r8-s0"].doubt is None and found["r8-s0-shuffled"].doubt is None
    assert found["r8-s0"].gain is not None and abs(found["r8-s0"].gain - 2.0) < 0.05
    assert found["r8-s0"].se is not None and 0.005 < found["r8-s0"].se < 0.05


def test_an_arm_that_gains_as_much_as_its_control_is_in_doubt(tmp_path: Path) -> None:
    examples = Examples()
    arms = {"r8-s0": Measured(examples.arm(0.5)), "r8-s0-random": Measured(examples.arm(0.5))}
    found = learned(tmp_path / "x", examples, arms)
    assert found["r8-s0"].doubt == "did not clearly gain more than its control r8-s0-random"


def test_no_rank_is_advised_where_no_arm_gains_more_than_its_control(tmp_path: Path) -> None:
    examples = Examples()
    uncut, other = examples.arm(0.5), examples.arm(0.5)
    arms = {f"r8-s{seed}": Measured(uncut, cuts={4: uncut}) for seed in range(3)}
    arms |= {f"r8-s{seed}-random": Measured(other) for seed in range(3)}
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert (advice.ship, advice.recipe, advice.train, advice.where) == (None, None, None, [])
    assert len(advice.learned) == 6


def test_controls_of_other_arms_that_diverged_or_that_learn_the_task_raise_no_doubt(tmp_path: Path) -> None:
    examples = Examples()
    arms = {"r8-s0": Measured(examples.arm(0.5)), "r8-s1-random": Measured(examples.arm(2.0))}
    arms |= {"r8-s0-frozen_a": Measured(examples.arm(2.0))}
    arms |= {"r8-s0-shuffled": Measured(np.full(examples.count, np.inf))}
    found = learned(tmp_path / "x", examples, arms)
    assert found["r8-s0"].doubt is None and found["r8-s0-shuffled"].doubt == "diverged"


def test_a_huge_loss_is_told_in_few_digits(tmp_path: Path) -> None:
    examples = Examples()
    found = learned(tmp_path / "x", examples, {"r8-s0": Measured(np.asarray(examples.labels * 1e30, np.float64))})
    assert "to 1.0e+30 on the judged examples" in str(found["r8-s0"].doubt)


def test_a_gain_that_is_not_clear_tells_the_number_that_would_do(tmp_path: Path) -> None:
    examples = Examples(count=40)
    arms = {"r8-s0": Measured(examples.arm(0.1, 1.0, exact=True), cuts={4: examples.base})}
    advice = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01)
    assert advice.learned[0].doubt is not None and advice.ship is None
    assert advice.remarks[0].startswith(
        "40 judged examples are too few to tell whether r8-s0 learned: train with data."
    )


def test_a_number_that_the_data_set_cannot_give_is_no_way_on(tmp_path: Path) -> None:
    examples = Examples(count=40)
    arms = {"r8-s0": Measured(examples.arm(0.02, 1.0, exact=True), cuts={4: examples.base})}
    remark = advice_of([write_judged(tmp_path / "x", examples, arms)], 0.01).remarks[0]
    assert "the data set can give 1,040 while half" in remark and "data.judged=" not in remark
