"""`benchmarks/verify_advice.py`: what it trains, what it checks, and all of it once at toy size."""

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
from advice_parts.stages import FULL, SETTINGS, TOY, Study, beyond, pattern, plan
from advice_parts.statements import MARGIN, Cost, Part, Statement, losses_on, parts_of
from advice_parts.words import PATTERN, RATE, STATEMENT, cost_of, counts, table_of_rates, table_of_statements
from results_file import Results, of_part
from verify_advice import verify

from deltaw.advice.judged import judged_rows
from deltaw.maths.spectrum import spectrum
from deltaw.run.adapter import load_adapter
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter
from tests.support.tiny import overrides

SIZES = replace(TOY, settings=SETTINGS)


def study(folder: Path) -> Study:
    tiny = overrides(folder, "arms.ranks=null", "data.judged=24", "trainer.max_steps=8")
    return Study(folder / "runs", SIZES, [*tiny, "data.cache=" + str(folder / "cache")])


def verified(folder: Path) -> dict[str, Any]:
    results = Results(folder / "advice.json")
    verify(study(folder), results)
    return results.found


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return verified(folder)


def test_a_pattern_takes_the_largest_singular_values_of_all_sites(tmp_path: Path) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "r8", 8, layers=3))
    ranks = pattern(adapter, 3)
    assert ranks.keys() == {site.module for site in adapter.sites}
    assert sum(ranks.values()) == 3 * len(adapter.sites) and min(ranks.values()) >= 1
    taken, left = [], []
    for site in adapter.sites:
        values = spectrum(adapter.A(site), adapter.B(site)).singular_values.tolist()
        taken += values[1 : ranks[site.module]]
        left += values[ranks[site.module] :]
    assert min(taken) >= max(left)


def test_a_pattern_of_rank_1_has_no_choice(tmp_path: Path) -> None:
    assert set(pattern(load_adapter(write_adapter(tmp_path / "r8", 8)), 1).values()) == {1}


@pytest.mark.parametrize(
    ("losses", "rate"),
    [([3.0, 2.0, 2.5], None), ([1.0, 2.0, 2.5], 0.005), ([3.0, 2.0, 1.5], 0.08), ([3.0, 2.0, float("inf")], None)],
)
def test_rates_are_tried_until_the_best_lies_between_others(losses: list[float], rate: float | None) -> None:
    assert beyond(dict(zip([0.01, 0.02, 0.04], losses, strict=True))) == rate


@pytest.mark.parametrize(
    ("enough", "low", "high", "verdict"),
    [
        (True, -0.5, 1, "confirmed"),
        (True, 1.5, 3, "wrong"),
        (True, 0.5, 3, "open"),
        (False, -0.5, 0.9, "too careful"),
        (False, 1.5, 3, "confirmed"),
        (False, 0.5, 3, "open"),
        (None, 0.5, 3, ""),
    ],
)
def test_a_verdict_needs_a_limit_on_one_side_of_the_margin(
    enough: bool | None, low: float, high: float, verdict: str
) -> None:
    found = Cost(MARGIN, low * MARGIN, high * MARGIN)
    assert Statement("r=8 cut to 4", enough, found, found).verdict == verdict


def test_what_is_called_enough_and_what_is_not_are_counted_apart() -> None:
    costs = {name: Cost(MARGIN, low * MARGIN, high * MARGIN) for name, low, high in [("low", 0, 1), ("high", 2, 3)]}
    said = [(True, "low"), (True, "high"), (False, "low"), (False, "high"), (False, "high"), (None, "high")]
    statements = [Statement("r=8 cut to 4", enough, costs[found], costs[found]) for enough, found in said]
    rows = [{"part": STATEMENT, "said": one.said, "verdict": one.verdict} for one in statements]
    assert counts({"results": rows}) == (
        "2 statements say 'enough': 1 confirmed, 1 wrong, 0 open. "
        "3 statements say 'not shown': 2 confirmed, 1 too careful, 0 open."
    )


def test_no_share_is_shown_where_the_gain_is_not_clear(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.json")
    results.add(known=Cost(0.3, nan, nan)._asdict())
    assert cost_of(results.found["results"][0]["known"]) == "no clear gain"


def test_a_loss_that_is_not_finite_has_diverged(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.json")
    for rate, loss in ((0.1, float("inf")), (0.01, 1.5)):
        results.add(part=RATE, rank=8, lr=rate, loss=loss, chosen=rate == 0.01)
    assert table_of_rates(results.found).splitlines()[2] == "| 8 | **1.500** | diverged |"


def test_all_stages_take_about_an_hour() -> None:
    rows = plan(Study(Path("runs"), FULL, [])).splitlines()[2:]
    assert sum(int(row.split("|")[-2]) for row in rows) <= 60


def test_every_stage_runs_and_every_cut_and_rank_is_checked(found: dict[str, Any], folder: Path) -> None:
    assert {path.name for path in (folder / "runs").iterdir()} == {"rates-1", "ranks", "patterns-2"}
    statements = [one["what"] for one in of_part(found, STATEMENT)]
    assert {"r=4 cut to 2", "r=4 cut to 1"} <= set(statements)
    assert sum(what.endswith(" trained") for what in statements) == 2  # of three ranks, one is the reference
    assert [(one["rank"], one["scale"][:5]) for one in of_part(found, PATTERN)] == [(2, "alpha"), (2, "of th")]
    assert len(of_part(found, RATE)) == 6 and sum(one["chosen"] for one in of_part(found, RATE)) == 3
    assert len(table_of_statements(found).splitlines()) == 2 + len(statements)


def test_a_second_start_trains_nothing(found: dict[str, Any], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.safetensors")}
    assert verified(folder) == found
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.safetensors")} == before


@pytest.mark.usefixtures("found")
def test_the_advice_knows_no_example_that_it_is_checked_on(folder: Path) -> None:
    run = RunDirectory(folder / "runs" / "ranks")
    known, others = parts_of(run)
    assert len(known) == 8 and len(others) == 16 and not known & others
    assert set(judged_rows(Part(run.path, known)).example) == known
    assert len(losses_on(others, run).labels) == 16
    learnt_by = {path.name: RunDirectory(path).record.data["learnt"] for path in (folder / "runs").iterdir()}
    assert len(set(learnt_by.values())) == 1  # the judged examples are set aside in every stage
