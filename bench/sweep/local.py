"""Stages on this machine."""

import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench.errors import UserError
from bench.machine import num_cores
from bench.sweep.params import SweepParams
from bench.sweep.process import DvcProcess, log_file, why_failed


class LocalRunner:
    """Up to `jobs` stages at once; cores are shared out, GPUs go round.

    Args:
        gpus: what CUDA calls those that may be used.
        gpus_per_job: 0 and parts of one share a GPU.
    """

    def __init__(self, project: Path, logs: Path, jobs: int, gpus: Sequence[str] = (), gpus_per_job: float = 0) -> None:
        self.project, self.logs, self.gpus = project, logs, gpus
        self.gpus_per_job = max(1, int(gpus_per_job))
        self.threads = max(1, num_cores() // jobs)
        self.free = list(range(jobs))  # places: each has its threads and its GPUs
        self.running: dict[str, tuple[DvcProcess, int]] = {}

    @property
    def has_room(self) -> bool:
        return bool(self.free)

    def start(self, stage: str) -> None:
        place = self.free.pop(0)
        try:
            process = DvcProcess(self.project, stage, log_file(self.logs, stage), self.environment(place))
        except UserError:
            self.free.append(place)
            raise
        self.running[stage] = process, place

    def environment(self, place: int) -> dict[str, str]:
        own = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            first = place * self.gpus_per_job
            own["CUDA_VISIBLE_DEVICES"] = ",".join(
                self.gpus[(first + i) % len(self.gpus)] for i in range(self.gpus_per_job)
            )
        return own

    def has_begun(self, stage: str) -> bool:
        return stage in self.running

    def finished(self) -> dict[str, str | None]:
        """Stages that have ended since the last call, each with why it failed, or None."""
        codes = {stage: process.poll() for stage, (process, _) in self.running.items()}
        ended = {stage: code for stage, code in codes.items() if code is not None}
        for stage in ended:
            self.free.append(self.running.pop(stage)[1])
        return {stage: why_failed(code, log_file(self.logs, stage)) for stage, code in ended.items()}

    def interrupt(self) -> None:
        for process, _ in self.running.values():
            process.interrupt()

    def kill(self) -> None:
        for process, _ in self.running.values():
            process.kill()


def count_jobs(asked: int | None, params: SweepParams, gpus: Sequence[str]) -> int:
    """How many stages at once this machine takes, and no more than asked for.

    Raises:
        UserError: a stage asks for more GPUs than there are.
    """
    if params.gpus > len(gpus):
        raise UserError(
            f"params.yaml: sweep.gpus: found {params.gpus:g}, wanted at most {len(gpus)}, the GPUs of this machine"
        )
    memory = psutil.virtual_memory().total / 1e9
    most = [num_cores() / params.cpus, memory / params.memory_gb]
    if params.gpus:
        per_gpu = math.floor(1 / params.gpus) if params.gpus < 1 else 1
        most.append(len(gpus) * per_gpu if params.gpus < 1 else len(gpus) // params.gpus)
    return max(1, math.floor(min([*most, asked or math.inf])))


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []  # no driver, no GPU
    return listed.stdout.split()
