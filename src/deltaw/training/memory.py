"""How this process takes memory from the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt
GIB = 2**30


def keep_freed_memory() -> None:
    """Let glibc use memory that is freed from now on again, where by itself it gives large blocks back to the system.

    Each step on a CPU takes the same large tensors. Where the system hands them out anew, it fills them with zeros page
    by page: 5 % of the processor time of a step of SmolLM2-135M-Instruct. What was freed before goes back to the
    system: loading frees weights that no step takes again.
    """
    glibc = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(glibc, "mallopt", None)
    if glibc and mallopt and mallopt(M_MMAP_THRESHOLD, GIB):  # some versions refuse that much, and stay as they are
        glibc.malloc_trim(0)
        mallopt(M_TRIM_THRESHOLD, 2 * GIB - 1)
