"""Memory that training frees is used again without the system, and what loading freed is given back."""

import platform
import resource
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from deltaw.training import trainer
from deltaw.training.task import LoraArms

TOUCH_AGAIN = """
import resource, torch
from deltaw.training.memory import keep_freed_memory

keep_freed_memory()
for turn in range(30):
    if turn == 20:  # by then every gap between blocks in use is known
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)  # 40 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

GIVE_BACK = """
import torch
from deltaw.training.memory import keep_freed_memory

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 10**6

torch.ones(5_000_000)  # from now on glibc keeps what is smaller
before = megabytes()
replaced = [torch.ones(250_000) for _ in range(400)]  # 400 MB
kept = replaced[::8]
del replaced
keep_freed_memory()
print(megabytes() - before)
"""

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")


@on_glibc
def test_large_tensors_take_pages_from_the_system_once() -> None:
    done = subprocess.run([sys.executable, "-c", TOUCH_AGAIN], check=True, capture_output=True, text=True)
    assert int(done.stdout) * resource.getpagesize() < 40_000_000  # of 400 million bytes


@on_glibc
def test_what_was_freed_before_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVE_BACK], check=True, capture_output=True, text=True)
    assert 50 <= int(done.stdout) < 100  # 50 are in use


@pytest.mark.parametrize(("device", "kept"), [("cpu", True), ("cuda", False), ("mps", False)])
def test_memory_is_kept_for_steps_on_a_cpu_once_the_weights_have_their_dtype(
    device: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Mock(spec=Trainer, keep_freed_memory=Mock())
    calls.strategy.root_device = torch.device(device)
    monkeypatch.setattr(trainer, "keep_freed_memory", calls.keep_freed_memory)
    trainer.fit(calls, Mock(spec=LoraArms), Mock(spec=DataLoader), None)
    made = [name for name, *_ in calls.mock_calls]
    assert made == ["precision_plugin.convert_module", *["keep_freed_memory"] * kept, "fit"]
