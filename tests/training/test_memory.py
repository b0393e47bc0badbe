"""Memory that was freed is used again without the system."""

import platform
import resource
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_large_tensors_take_pages_from_the_system_once() -> None:
    done = subprocess.run([sys.executable, "-c", TOUCH_AGAIN], check=True, capture_output=True, text=True)
    assert int(done.stdout) * resource.getpagesize() < 40_000_000  # of 400 million bytes
