"""K arms in company beside K jobs, from what their processes took."""

from dataclasses import replace
from pathlib import Path

import arms
import pytest


def took(work: Path, job: arms.Job) -> arms.Took:
    """Ten seconds of start, and for each arm two seconds of steps and half a GiB beyond the base's one."""
    steps = 2.0 * len(job.seeds)
    return arms.Took(10 + steps, 10 + steps, 10, steps, 1 + len(job.seeds) / 2, 0.1)


def test_jobs_add_up_and_a_company_starts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arms, "measure", took)
    rows = arms.compared(tmp_path, batch=4, steps=3, base_gib=1)
    last = rows[-1]
    assert [row["arms"] for row in rows] == [1, 2, 4, 8]
    assert (last["company"]["wall_s"], last["jobs"]["wall_s"]) == (26, 96)
    assert last["company"]["steps_s"] == last["jobs"]["steps_s"] == 16
    assert last["company"]["peak_gib"] == last["base_and_arms_gib"] == 5
    assert last["jobs"]["peak_gib"] == 12
    table = arms.table({"results": rows})
    assert table.endswith("| 4 | 3 | 8 | 16.0 | 16.0 | 1.00 | 26.0 | 96.0 | 0.27 | 5.00 | 5.00 | 12.00 |")
    arms.plot(rows, tmp_path / "arms.png")
    assert (tmp_path / "arms.png").stat().st_size > 10_000


def test_shadows_are_compared_with_both_arms_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arms, "measure", lambda work, job: replace(took(work, job), steps_s=3.0 + job.shadows))
    rows = [{**row, "ranks": list(row["ranks"])} for row in arms.shadow_costs(tmp_path, steps=3)]
    cells = [line.strip("| ").split(" | ") for line in arms.table_of_shadows({"results": rows}).splitlines()[2:]]
    assert cells[0] == ["r=8", "0", "1.000", "1.00", "1.50", "0.20%"]
    assert [row[:4] for row in cells[-2:]] == [
        ["r=8 and r=64", "1", "1.333", "1.33"],
        ["r=8 and r=64", "4", "2.333", "2.33"],
    ]


def test_every_job_has_a_name_of_its_own() -> None:
    jobs = [arms.Job(4, 3, (8,), (0, 1)), arms.Job(4, 3, (8,), (0,)), arms.Job(4, 3, (8,), (0,), shadows=1)]
    assert len({job.name for job in jobs}) == 3
