"""What a process may use of its machine."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine
from bench.machine import MOST_WORKERS, count_workers, num_cores

REPO = Path(__file__).parents[1]
CPU, GPU = "cpu", "cuda"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which cores are a process's")
def test_cores_are_those_that_the_process_may_use() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, mine)
    assert num_cores() == len(mine)


@pytest.mark.parametrize(
    ("cores", "device", "wanted"), [(2, CPU, 0), (64, CPU, 0), (2, GPU, 2), (64, GPU, MOST_WORKERS)]
)
def test_workers_by_the_machine(cores: int, device: str, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: cores)
    assert count_workers("auto", device) == wanted


@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_number_is_a_number(device: str) -> None:
    assert count_workers(3, device) == 3


COUNT_FAULTS = """
import resource, sys
from bench.machine import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
bytearray(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another library of C than glibc")
def test_memory_is_kept_for_the_next_array() -> None:
    """Else every page of 20 arrays of 8 MiB is asked for anew."""
    given_back, kept = (
        int(
            subprocess.run([sys.executable, "-c", COUNT_FAULTS, kind], cwd=REPO, check=True, capture_output=True).stdout
        )
        for kind in ("given back", "kept")
    )
    assert kept < given_back / 4
