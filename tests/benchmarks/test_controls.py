"""`benchmarks/controls.py` and `benchmarks/calibration.py`: their tables, from rows made by hand."""

from typing import Any

import calibration
import controls


def shared(learned: str, mean: float | None, se: float | None) -> list[dict[str, Any]]:
    bases, measures = ("A", "update", "output"), controls.MEASURES
    of = {"part": controls.SHARED, "learned": learned, "mean": mean, "se": se}
    return [of | {"basis": basis, "measure": measure} for basis in bases for measure in measures]


def test_what_is_shared_is_a_row_for_each_kind_and_basis() -> None:
    rows = [*shared("", 0.2, 0.01), *shared("-shuffled", 0.1, None), *shared("-shadow1", None, None)]
    lines = controls.table({"results": rows}).splitlines()
    assert len(lines) == 2 + 9 and lines[2] == "| the task | A | " + " | ".join(["0.200 ± 0.010"] * 3) + " |"
    short = controls.table_in_short({"results": rows}).splitlines()
    assert [line.split(" | ")[1] for line in short[2:]] == ["0.200 ± 0.010", "0.100 ± –", "–"]


def test_sites_of_all_seeds_are_one_row() -> None:
    site = {"part": controls.SITE, "projection": "q", "i": 1, "j": 1, "chance": 0.004}
    rows = [
        site | {"layer": layer, "seed": seed, "phi": layer / 10 + seed / 100} for layer in (1, 2) for seed in (0, 1)
    ]
    assert controls.table_of_sites({"results": rows}).splitlines()[2:] == [
        "| φ(1, 1), ΔW_q | 0.100 | 0.155 | 0.210 | 0.004 |"
    ]


def test_a_control_may_lose_and_a_task_has_no_share() -> None:
    arm = {"part": controls.LOSS, "start": 3.0, "end": 2.0, "end_se": 0.1}
    rows = [arm | {"arm": "r8-s0", "share": None}, arm | {"arm": "r8-s0-random", "end": 9.0, "share": -6.0}]
    assert controls.table_of_losses({"results": rows}).splitlines()[2:] == [
        "| r8-s0 | 3.00 | 2.00 ± 0.10 |  |",
        "| r8-s0-random | 3.00 | 9.00 ± 0.10 | −600% |",
    ]


def test_the_tables_of_a_calibration_say_what_is_not_known() -> None:
    excess = {"part": calibration.EXCESS, "of_seeds": 3, "basis": "A", "measure": "first", "pair": 0.2}
    rows = [
        {"part": calibration.RATE, "against": "of other seeds", "rate": 0.02, "upper": None},
        excess | {"control": 0.1, "excess": 0.1, "se": 0.01, "p": 0.04},
        excess | {"control": None, "excess": None, "se": None, "p": None},
    ]
    assert calibration.table_of_rates({"results": rows}).splitlines()[-1] == "| of other seeds | 2.0% | – |"
    assert calibration.table({"results": rows}).splitlines()[2:] == [
        "| 3 | A | first | 0.200 | 0.100 | 0.100 ± 0.010 | 0.04 |",
        "| 3 | A | first | 0.200 | – | – ± – |  |",
    ]
