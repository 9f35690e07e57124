"""Stages on the nodes of a Ray cluster, each of which sees the project under the same path."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.sweep.params import SweepParams
from bench.sweep.process import log_file

Stamp = tuple[int, int]
MAX_RETRIES = 3
"""Of a stage whose node died under it."""
SECONDS_TO_STOP = 20.0
SECONDS_TO_ANSWER = 10.0


class RayRunner:
    """Every stage a task of Ray, which places it where there is room, and again elsewhere if the node dies.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, project: Path, logs: Path, jobs: int | None, address: str, params: SweepParams) -> None:
        self.ray = connect(address)
        self.project, self.logs, self.jobs = project, logs, jobs
        threads = str(max(1, int(params.cpus)))
        as_needed = self.ray.remote(
            num_cpus=params.cpus,
            num_gpus=params.gpus,
            memory=int(params.memory_gb * 1e9),
            max_retries=MAX_RETRIES,
        )
        self.task = as_needed(stage_task(str(project), {"OMP_NUM_THREADS": threads}))
        self.running: dict[str, Any] = {}  # stage -> reference
        self._cancelled: set[str] = set()
        self._logs_before: dict[str, Stamp | None] = {}

    @property
    def has_room(self) -> bool:
        return self.jobs is None or len(self.running) < self.jobs

    def start(self, stage: str) -> None:
        log = log_file(self.logs, stage)
        self._logs_before[stage] = stamp(log)
        self.running[stage] = self.task.options(name=stage).remote(stage, str(log))

    def has_begun(self, stage: str) -> bool:
        """Whether its task has found room: it writes the log anew."""
        return stamp(log_file(self.logs, stage)) != self._logs_before[stage]

    def finished(self) -> dict[str, str | None]:
        """Stages that have ended since the last call, each with why it failed, or None."""
        names = {reference: stage for stage, reference in self.running.items()}
        ended, _ = self.ray.wait(list(names), num_returns=len(names), timeout=0) if names else ([], [])
        found = {names[reference]: self._result(reference) for reference in ended}
        for stage in found:
            del self.running[stage]
        return found

    def _result(self, reference: Any) -> str | None:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return (str(error).strip().splitlines() or [type(error).__name__])[-1]  # some say nothing

    def interrupt(self) -> None:
        for stage in self.running.keys() - self._cancelled:
            self._cancelled.add(stage)
            self.ray.cancel(self.running[stage])

    def kill(self) -> None:
        for reference in self.running.values():
            self.ray.cancel(reference, force=True)  # what the task has started ends with it


def stamp(file: Path) -> Stamp | None:
    """What changes when a file is written."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def connect(address: str) -> Any:
    """Ray, connected.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError(
            "--ray: Ray is not installed, wanted the extra `ray`: "
            "`.venv/bin/uv pip install -r pyproject.toml --extra ray -c requirements.lock`"
        ) from error
    check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--ray: no cluster at {address!r} ({reason})") from error
    return ray


def check_reachable(address: str) -> None:
    """Ray itself takes minutes to say that nobody answers.

    Raises:
        UserError: nobody answers at host and port; an address without these is not looked at.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise UserError(f"--ray: no cluster at {address!r} ({error.strerror or error})") from error


def stage_task(project: str, environment: dict[str, str]) -> Callable[[str, str], str | None]:
    """What a node does: an inner function, so that Ray sends it as it is, and the node finds our modules itself."""
    code = str(Path(__file__).parents[2])

    def run(stage: str, log: str) -> str | None:
        import sys  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        if not Path(project, "dvc.yaml").is_file():
            return f"{project}: not there on a node, wanted the project at the same path on all"
        if code not in sys.path:
            sys.path.insert(0, code)
        from bench.sweep.process import run_to_end  # noqa: PLC0415

        return run_to_end(Path(project), stage, Path(log), environment, SECONDS_TO_STOP)

    return run
