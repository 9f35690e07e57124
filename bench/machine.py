"""What this process may use of its machine."""

import ctypes
import os
import sys
from typing import Literal

MOST_WORKERS = 12
"""From a store of crops fewer feed a GPU; each takes memory."""
MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 32 * 2**20}
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of glibc's malloc.h, the last at its maximum."""


def num_cores() -> int:
    """That are this process's, which a cluster may have given a part of a machine."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def count_workers(asked: int | Literal["auto"], device_type: str) -> int:
    """Processes that read images: as many as asked for, or by the machine.

    A GPU has all cores read for it; on a CPU the model needs them itself.
    """
    if asked != "auto":
        return asked
    return min(num_cores(), MOST_WORKERS) if device_type == "cuda" else 0


def keep_memory() -> None:
    """Have glibc keep what this process frees, for its next arrays of the same size.

    It else gives memory back after every step of a training, and the system clears it anew: a seventh of the time.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, value in MALLOC_OPTIONS.items():
            libc.mallopt(option, value)
