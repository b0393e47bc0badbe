"""What dropping sites costs, where each site's part of the gain is known."""

from pathlib import Path

import numpy as np
import pytest

from deltaw.advice.advise import advice_of
from deltaw.advice.judged import Judged, JudgedArm
from deltaw.advice.where import where_of
from tests.support.folders import arm_record
from tests.support.judged import STEP, Examples, Measured, write_judged

SHARES = {f"{projection} of layer {layer}": 0.0 for layer in (1, 2, 3) for projection in "qv"} | {
    "q of layer 1": 0.2,
    "v of layer 3": 0.1,
}


def test_costs_are_shares_of_the_gain_with_limits_that_hold_at_once(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    shares = SHARES | {"q": 0.2, "v": 0.1, "layer 1": 0.2, "layers 2 to 3": 0.3}
    dropped = {what: examples.arm(-2.0 * share, 0.02, of=uncut, exact=True) for what, share in shares.items()}
    found = advice_of([write_judged(tmp_path / "x", examples, {"r8-s0": Measured(uncut, dropped=dropped)})], 0.01).where
    by_name = {one.what: one for one in found}
    assert {name: one.kind for name, one in by_name.items() if name not in SHARES} == {
        "q": "projection",
        "v": "projection",
        "layer 1": "third",
        "layers 2 to 3": "third",
    }
    for name, share in shares.items():
        one = by_name[name]
        assert one.at_least <= share <= one.at_most and one.cost == pytest.approx(share, abs=0.01)
        assert (one.p < 0.05) == (share > 0)
    assert all(one.sites is None for one in found if one.kind == "site")
    sums = {name: by_name[name].sites for name in ("q", "v", "layer 1", "layers 2 to 3")}
    assert sums == pytest.approx({"q": 0.2, "v": 0.1, "layer 1": 0.2, "layers 2 to 3": 0.1}, abs=0.01)
    assert {name for name in sums if not by_name[name].adds_up} == {"layers 2 to 3"}


def test_costs_of_sites_that_do_not_interact_are_rarely_said_not_to_add_up(tmp_path: Path) -> None:
    """The error of the sum counts as well: here it is larger than that of the whole."""
    sites = [f"q of layer {layer}" for layer in range(1, 9)]
    run, record = (
        write_judged(tmp_path / "x", Examples(), {"r8-s0": Measured(Examples().arm(2.0))}),
        arm_record("r8-s0"),
    )
    found = []
    for seed in range(100):
        examples = Examples(count=60, seed=seed)
        uncut = examples.arm(2.0)
        dropped = {site: examples.arm(-0.02, 0.05, of=uncut) for site in sites}
        dropped["q"] = examples.arm(-0.16, 0.01, of=uncut)
        arm = JudgedArm("r8-s0", run, record, 1.0, examples.base, uncut, dropped=dropped)  # type: ignore[arg-type]
        rows = where_of(Judged([arm], examples.labels, np.arange(60), STEP, 1), arm)
        found += [one.adds_up for one in rows if one.kind == "projection"]
    assert len(found) == 100 and found.count(False) <= 10  # 5 on average


def test_without_sites_there_is_no_sum(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    arm = Measured(uncut, dropped={"q": examples.arm(-0.2, of=uncut)})
    (one,) = advice_of([write_judged(tmp_path / "x", examples, {"r8-s0": arm})], 0.01).where
    assert (one.kind, one.sites, one.adds_up) == ("projection", None, None)
