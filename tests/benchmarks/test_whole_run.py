"""Whole processes, timed while they run."""

import os
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import whole_run
from whole_run import Process, Turns, in_turns

WORKS = "import time\nwhile time.process_time() < 0.5: pass\nprint(time.time())"


def test_a_process_is_timed_while_it_runs() -> None:
    ended = Process([(10, 12), (15, 16), (20, 21)], 0, 0, "")
    assert [ended.by(moment) for moment in (9, 10, 11, 13, 15.5, 20, 30)] == [0, 0, 1, 2, 2.5, 3, 4]
    assert ended.wall_s == 4


def run(count: int, turns: Turns) -> list[Process]:
    return [whole_run.process("-c", WORKS, turns=turns) for _ in range(count)]


def test_of_processes_in_turns_one_at_a_time_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_run, "TURN_S", 0.02)
    found = in_turns({"one": partial(run, 1), "two": partial(run, 2)})
    assert {name: len(processes) for name, processes in found.items()} == {"one": 1, "two": 2}
    processes = found["one"] + found["two"]
    ran = sorted(turn for process in processes for turn in process.ran)
    assert all(earlier <= later for (_, earlier), (later, _) in pairwise(ran))
    for process in processes:
        assert len(process.ran) > 1 and process.processor_s >= 0.5
        assert process.ran[0][0] < float(process.printed) < process.ran[-1][1]


def test_a_process_without_turns_is_never_stopped() -> None:
    alone, with_turns = whole_run.process("-c", WORKS), run(1, Turns(0.02))[0]
    assert len(alone.ran) == 1 and len(with_turns.ran) > 1


def test_a_process_that_fails_ends_the_benchmark_with_its_last_line() -> None:
    assert whole_run.process("-c", "print(1)").printed == "1\n"
    with pytest.raises(SystemExit, match="no luck"):
        whole_run.process("-c", "raise SystemExit('no luck')")
    with pytest.raises(SystemExit, match="no luck"):
        in_turns({"fails": lambda turns: whole_run.process("-c", "raise SystemExit('no luck')", turns=turns)})


def test_steps_begin_when_every_arm_has_its_first_snapshot(tmp_path: Path) -> None:
    for seconds, place in enumerate(["a/step-00000000", "b/step-00000000", "a/step-00000003", "b/step-00000003"], 1):
        file = tmp_path / "snapshots" / place / "adapter_model.safetensors"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (seconds, seconds))
    assert (whole_run.first_step(tmp_path), whole_run.last_step(tmp_path, 3)) == (2, 4)
