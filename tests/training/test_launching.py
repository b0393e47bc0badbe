"""A run is the same under Lightning's own launcher, torchrun and srun."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.processes import finish, free_port, start
from tests.support.tiny import factors, largest_difference, run

TORCHRUN = ["-m", "torch.distributed.run"]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    return run(folder, "run.name=alone")


def assert_same_factors(left: Path, right: Path) -> None:
    assert max(largest_difference(factors(left, arm), factors(right, arm)) for arm in ("r2-s0", "r6-s0")) <= 1e-10


def machine(number: int, port: int) -> list[str]:
    """torchrun as one of two machines; both are this one."""
    place = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    return [*TORCHRUN, *place, f"--rdzv-conf=is_host={number == 0}", "--local-addr=127.0.0.1", f"--node-rank={number}"]


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_machines_train_and_resume_after_a_stop(folder: Path, alone: Path, engine: str) -> None:
    def both(port: int) -> list["subprocess.Popen[str]"]:
        settings = [f"run.name={engine}", f"engine={engine}", "trainer.devices=auto"]
        return [start(folder, *settings, by=machine(n, port)) for n in range(2)]

    here = folder / "runs" / engine
    agents = both(free_port())
    while agents[0].poll() is None and not (here / "snapshots" / "r2-s0" / "step-00000005").exists():
        time.sleep(0.01)
    for agent in agents:
        agent.send_signal(signal.SIGTERM)
    out = [agent.communicate(timeout=300)[0] for agent in agents]
    assert "stopped after step" in "".join(out)
    assert not (here / "snapshots" / "r2-s0" / "step-00000020").exists()
    for agent in both(free_port()):
        finish(agent)
    assert_same_factors(here, alone)


@pytest.mark.ddp
def test_srun_determines_the_number_of_processes(folder: Path, alone: Path) -> None:
    port = str(free_port())

    def task(number: int) -> "subprocess.Popen[str]":
        job = {
            "JOB_ID": "4711",
            "NNODES": "1",
            "NTASKS": "2",
            "NTASKS_PER_NODE": "2",
            "NODELIST": "127.0.0.1",
            "NODEID": "0",
        }
        own = {"PROCID": str(number), "LOCALID": str(number)}
        told = {f"SLURM_{name}": value for name, value in (job | own).items()}
        return start(folder, "run.name=srun", "trainer.devices=auto", environment=told | {"MASTER_PORT": port})

    for process in [task(0), task(1)]:
        finish(process)
    assert_same_factors(folder / "runs" / "srun", alone)


@pytest.mark.ddp
def test_a_number_of_devices_that_torchrun_did_not_start_is_refused(folder: Path) -> None:
    by = [*TORCHRUN, "--nproc-per-node=2"]
    out = finish(start(folder, "run.name=others", "trainer.devices=1", by=by), 1)
    assert "trainer.devices=1 and trainer.num_nodes=1 ask for 1 processes, and torchrun started 2" in out
    assert not (folder / "runs" / "others").exists()
    out = finish(start(folder, "run.name=others", "trainer.devices=auto", "dry_run=true", by=by))
    assert "torchrun --nproc-per-node=2 -m deltaw train model=hub" in out
    assert not (folder / "runs" / "others").exists()
