"""`benchmarks/controls.py` and `benchmarks/calibration.py`: their tables, from rows made by hand."""

from typing import Any

import calibration
import controls

BASES = ("A", "update", "output")


def shared(learned: str, mean: float | None, se: float | None) -> list[dict[str, Any]]:
    """One more hundredth for each basis, and one more thousandth for each measure."""
    return [
        {"part": controls.SHARED, "learned": learned, "basis": basis, "measure": measure, "se": se}
        | {"mean": None if mean is None else mean + BASES.index(basis) / 100 + place / 1000}
        for basis in BASES
        for place, measure in enumerate(controls.MEASURES)
    ]


def test_what_is_shared_is_a_row_for_each_kind_and_basis() -> None:
    kinds = {controls.TASK: (0.2, 0.01), controls.SHUFFLED: (0.1, None), controls.CROSSED: (0.3, 0.0004)}
    rows = [row for kind, (mean, se) in kinds.items() for row in shared(kind, mean, se)]
    rows += shared(controls.NOTHING, None, None)
    lines = controls.table({"results": rows}).splitlines()
    assert len(lines) == 2 + 12
    assert lines[3] == "| the task | update | 0.210 ± 0.010 | 0.211 ± 0.010 | 0.212 ± 0.010 |"
    short = [line.split(" | ")[1:] for line in controls.table_in_short({"results": rows}).splitlines()[2:]]
    assert short[0] == ["0.200 ± 0.010", "0.210 ± 0.010", "0.220 ± 0.010 |"]
    assert [row[0] for row in short[1:]] == ["0.100 ± –", "0.300 ± <0.001", "–"]


def test_sites_of_all_seeds_are_one_row() -> None:
    site = {"part": controls.SITE, "projection": "q", "i": 1, "j": 1, "chance": 0.004}
    rows = [
        site | {"layer": layer, "seed": seed, "phi": layer / 10 + seed / 100} for layer in (1, 2) for seed in (0, 1)
    ]
    assert controls.table_of_sites({"results": rows}).splitlines()[2:] == [
        "| φ(1, 1), ΔW_q | 0.100 | 0.155 | 0.210 | 0.004 |"
    ]


def test_sentences_of_seeds_and_losses_have_their_numbers() -> None:
    site = {"part": controls.SITE, "projection": "q", "i": 1, "j": 1, "chance": 0.1}
    numbers = {(1, 0): 0.2, (1, 1): 0.4, (2, 0): 0.3, (2, 1): 0.3}
    loss = {"part": controls.LOSS, "start": 3.0, "end_se": 0.05}
    rows = [
        *(site | {"layer": layer, "seed": seed, "phi": phi} for (layer, seed), phi in numbers.items()),
        site | {"layer": 1, "seed": 0, "phi": 1.0, "i": 8, "j": 64},
        *shared(controls.TASK, 0.25, 0.01),
        *(
            loss | {"arm": arm, "end": end, "share": None}
            for arm, end in (("r8-s0", 1.0), ("r8-s1", 2.0), ("r64-s0", 1.2))
        ),
        *(loss | {"arm": "r8-s0-shuffled", "end": 2.8, "share": share} for share in (0.1, 0.2)),
        loss | {"arm": "r8-s0-random", "end": 9.0, "share": -3.0},
    ]
    found = {"results": rows, "seeds": [0, 1], "ranks": [8, 64], "step": 150}
    assert "is 0.200 beyond chance for r=8 and r=64 of one seed, and 0.250 ± 0.010" in controls.sentence_of_orders(
        found
    )
    assert "deviation of 0.07 (median of the 2 sites of the bundled base), at one of them 0.14" in (
        controls.sentence_of_spread(found)
    )
    assert "from 3.00 to 1.50 and 1.20 nats" in (said := controls.sentence_of_losses(found))
    assert "at most 0.05" in said and "reach 10 to 20 % of that gain" in said


def test_a_control_may_lose_and_a_task_has_no_share() -> None:
    arm = {"part": controls.LOSS, "start": 3.0, "end": 2.0, "end_se": 0.1}
    rows = [arm | {"arm": "r8-s0", "share": None}, arm | {"arm": "r8-s0-random", "end": 9.0, "share": -6.0}]
    assert controls.table_of_losses({"results": rows}).splitlines()[2:] == [
        "| r8-s0 | 3.00 | 2.00 ± 0.10 |  |",
        "| r8-s0-random | 3.00 | 9.00 ± 0.10 | −600% |",
    ]


def test_the_tables_of_a_calibration_have_the_tests_of_all_bases() -> None:
    excess = {"part": calibration.EXCESS, "of_seeds": 3, "basis": "A", "measure": "first", "pair": 0.2, "control": 0.1}
    rows = [
        {"part": calibration.RATE, "against": "of other seeds", "rate": 0.02, "upper": None},
        excess | {"excess": 0.1, "se": 0.01, "p": 0.04},
        excess | {"basis": "output", "excess": 0.1, "se": 0.0001, "p": 1e-9},
        excess | {"measure": "corner", "excess": 0.1, "se": None, "p": None},  # the error is not known
        excess | {"basis": "input", "excess": 0.1, "se": 0.01, "p": None},  # not tested
    ]
    found = [{"base": base, "results": rows} for base in ("small", "large")]
    assert calibration.table_of_rates(found).splitlines()[2:] == [
        "| small | of other seeds | 2.0% | – |",
        "| large | of other seeds | 2.0% | – |",
    ]
    assert calibration.table(found).splitlines()[2:6] == [
        "| small | 3 | A | φ(1, 1) | 0.200 | 0.100 | 0.100 ± 0.010 | 0.04 |",
        "| small | 3 | output | φ(1, 1) | 0.200 | 0.100 | 0.100 ± <0.001 | <0.001 |",
        "| small | 3 | A | φ(r, r′) | 0.200 | 0.100 | 0.100 ± – | – |",
        "| large | 3 | A | φ(1, 1) | 0.200 | 0.100 | 0.100 ± 0.010 | 0.04 |",
    ]
