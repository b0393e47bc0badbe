"""The two commands as a user starts them."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from deltaw.analysis.bases import BASES
from deltaw.commands.sweep import _suffix, _swept_keys
from tests.support.tiny import ROOT, make_base, make_pairs, overrides, run


def command(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], capture_output=True, text=True, cwd=cwd, timeout=300
    )


@pytest.mark.slow
def test_the_demo_at_a_tiny_size(tmp_path: Path) -> None:
    trained = command("train.py", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    again = command("train.py", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1", cwd=tmp_path)
    assert (again.returncode, "is finished" in again.stdout) == (0, True)
    analysed = command("analyze.py", cwd=tmp_path)
    assert analysed.returncode == 0, analysed.stderr
    home = tmp_path / "runs" / "bundled-calls-r8-s0_r64-s0"
    assert "analysis/fig6.png" in analysed.stdout
    assert (home / "analysis" / "fig6.png").stat().st_size > 20_000
    phi = pd.read_parquet(home / "analysis" / "phi.parquet")
    cells = 2 * 8 * 8 * 64  # of the arms, and as many of their control pair
    assert phi.groupby("basis", sort=False).size().to_dict() == dict.fromkeys(BASES, 2 * cells)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}  # nothing is written elsewhere


@pytest.mark.slow
def test_a_sweep_and_the_analysis_of_its_jobs_equal_one_run_of_both_arms(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    precise = ["trainer.precision=32-true", "snapshots.every=20"]
    one_run = run(tmp_path, *precise)
    swept = command("train.py", "-m", *overrides(tmp_path, *precise, "arms.ranks=[2],[6]"), cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    jobs = [tmp_path / "runs" / f"base-pairs-r{rank}-s0" for rank in (2, 6)]
    analyses = {
        "one": [f"run={one_run}"],
        "two": [f"left={jobs[0]}", f"right={jobs[1]}", f"output={tmp_path / 'two'}"],
    }
    for arguments in analyses.values():
        done = command("analyze.py", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = (pd.read_parquet(folder / "phi.parquet") for folder in (one_run / "analysis", tmp_path / "two"))
    pd.testing.assert_frame_equal(one, two, atol=1e-4)
    assert one.phi.std() > 0.05


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_job_and_ends_with_an_error(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    few = overrides(tmp_path, "trainer.max_steps=2", "arms.ranks=[99],[2]")
    done = command("train.py", "-m", *few, cwd=tmp_path)
    assert done.returncode == 1
    assert "error: sweep job 0 (" in done.stderr.splitlines()[-1]
    assert (tmp_path / "runs" / "base-pairs-r2-s0" / "checkpoints" / "last.ckpt").is_file()


def test_torchrun_with_a_sweep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    done = command("train.py", "-m", "arms.ranks=[8],[64]", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: torchrun with -m" in done.stderr


def test_a_sweep_adds_to_the_name_each_value_that_the_default_name_does_not_tell() -> None:
    line = ["-m", "arms.ranks=[8],[64]", "optim.warmup=0,0.1", "+x=a/b,c", "run.dir='a,b'"]
    swept = _swept_keys(line)
    assert swept == {"arms.ranks", "optim.warmup", "x"}
    assert _suffix(["arms.ranks=[8]", "optim.warmup=0.1", "+x=a/b", "run.dir=a,b"], swept) == "-optim.warmup-0.1-x-a-b"


UNUSED = """
    peft bitsandbytes datasets sklearn tensorboard wandb mlflow submitit
    transformers.trainer torch._inductor.compile_fx
    deltaw.advice deltaw.analysis deltaw.exhibit deltaw.report
"""


def test_the_start_of_a_run_loads_nothing_that_one_process_does_without() -> None:
    code = "import sys, deltaw.entry.train, deltaw.commands.train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(UNUSED.split()) & set(done.stdout.split())
