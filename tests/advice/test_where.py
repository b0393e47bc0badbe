"""What dropping sites costs, where each site's part of the gain is known."""

from pathlib import Path

import pytest

from deltaw.advice.advise import advice_of
from tests.support.judged import Examples, Measured, write_judged

SHARES = {f"{projection} of layer {layer}": 0.0 for layer in (1, 2, 3) for projection in "qv"} | {
    "q of layer 1": 0.2,
    "v of layer 3": 0.1,
}


def test_costs_are_shares_of_the_gain_with_limits_that_hold_at_once(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    shares = SHARES | {"q": 0.2, "v": 0.1, "layer 1": 0.2, "layers 2 to 3": 0.3}
    dropped = {what: examples.arm(-2.0 * share, 0.02, of=uncut) for what, share in shares.items()}
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


def test_without_sites_there_is_no_sum(tmp_path: Path) -> None:
    examples = Examples()
    uncut = examples.arm(2.0)
    arm = Measured(uncut, dropped={"q": examples.arm(-0.2, of=uncut)})
    (one,) = advice_of([write_judged(tmp_path / "x", examples, {"r8-s0": arm})], 0.01).where
    assert (one.kind, one.sites) == ("projection", None)
