"""What a process may use of its machine."""

import os
import sys

import pytest

from bench import machine
from bench.machine import MOST_WORKERS, count_workers, num_cores

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
