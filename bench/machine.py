"""What this process may use of its machine."""

import os
import sys
from typing import Literal

Workers = int | Literal["auto"]
MOST_WORKERS = 12
"""From a store of crops fewer feed a GPU; each takes memory."""


def num_cores() -> int:
    """That are this process's, which a cluster may have given a part of a machine."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def count_workers(asked: Workers, device_type: str) -> int:
    """Processes that read images: as many as asked for, or by the machine.

    A GPU has all cores read for it; on a CPU the model needs them itself.
    """
    if asked != "auto":
        return asked
    return min(num_cores(), MOST_WORKERS) if device_type == "cuda" else 0
