"""How this process takes memory from the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt
GIB = 2**30


def keep_freed_memory() -> None:
    """Let glibc use freed memory again, where by itself it gives large blocks back to the system.

    Each step takes the same large tensors. Where the system hands them out anew, it fills them with zeros page by page:
    5 % of the processor time of a step of SmolLM2-135M-Instruct on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt and mallopt(M_MMAP_THRESHOLD, GIB):  # some versions refuse that much, and stay as they are
        mallopt(M_TRIM_THRESHOLD, 2 * GIB - 1)
