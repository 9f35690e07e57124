"""Stages on the nodes of a Ray cluster, which share the project's files, or have a clone each and share a DVC remote.

The project has the same path on all nodes, or the one that the variable BENCH_PROJECT of a node's environment names.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.sweep.params import SweepParams
from bench.sweep.process import log_file
from bench.sweep.remote import Ended, Entries, Shared

Stamp = tuple[int, int]
MAX_RETRIES = 3
"""Of a stage whose node died under it."""
SECONDS_TO_STOP = 20.0
SECONDS_TO_ANSWER = 10.0


class RayRunner:
    """Every stage a task of Ray, which places it where there is room, and again elsewhere if the node dies.

    The nodes share the project's files.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        project: Path,
        logs: Path,
        jobs: int | None,
        address: str,
        params: SweepParams,
        shared: Shared | None = None,
    ) -> None:
        self.ray = connect(address)
        self.project, self.logs, self.jobs = project, logs, jobs
        threads = str(max(1, int(params.cpus)))
        as_needed = self.ray.remote(
            num_cpus=params.cpus,
            num_gpus=params.gpus,
            memory=int(params.memory_gb * 1e9),
            max_retries=MAX_RETRIES,
        )
        self.task = as_needed(stage_task(str(project), {"OMP_NUM_THREADS": threads}, shared))
        self.running: dict[str, Any] = {}  # stage -> reference
        self._cancelled: set[str] = set()
        self._logs_before: dict[str, Stamp | None] = {}

    @property
    def has_room(self) -> bool:
        return self.jobs is None or len(self.running) < self.jobs

    def start(self, stage: str) -> None:
        log = log_file(self.logs, stage)
        self._logs_before[stage] = stamp(log)
        self.submit(stage)

    def submit(self, stage: str, inputs: Entries | None = None) -> None:
        log = log_file(self.logs, stage).relative_to(self.project)
        self.running[stage] = self.task.options(name=stage).remote(stage, str(log), inputs)

    def has_begun(self, stage: str) -> bool:
        """Whether its task has found room: it writes the log anew."""
        return stamp(log_file(self.logs, stage)) != self._logs_before[stage]

    def finished(self) -> dict[str, str | None]:
        """Stages that have ended since the last call, each with why it failed, or None."""
        return {stage: ended.why_failed for stage, ended in self.ended().items()}

    def ended(self) -> dict[str, Ended]:
        """Tasks that have ended since the last call."""
        names = {reference: stage for stage, reference in self.running.items()}
        ended, _ = self.ray.wait(list(names), num_returns=len(names), timeout=0) if names else ([], [])
        found = {names[reference]: self._result(reference) for reference in ended}
        for stage in found:
            del self.running[stage]
        return found

    def _result(self, reference: Any) -> Ended:
        try:
            return Ended(*self.ray.get(reference))
        except self.ray.exceptions.RayError as error:
            return Ended(reason(error))

    def interrupt(self) -> None:
        for stage in self.running.keys() - self._cancelled:
            self._cancelled.add(stage)
            self.ray.cancel(self.running[stage])

    def kill(self) -> None:
        for reference in self.running.values():
            self.ray.cancel(reference, force=True)  # what the task has started ends with it


def reason(error: BaseException) -> str:
    """The last line of what it says; some say nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


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


def stage_task(
    project: str, environment: dict[str, str], shared: Shared | None
) -> Callable[[str, str, Entries | None], tuple[Any, ...]]:
    """What a node does: an inner function, so that Ray sends it as it is, and the node finds our modules itself."""
    code, grace = str(Path(__file__).parents[2]), SECONDS_TO_STOP
    by_remote = None if shared is None else tuple(shared)

    def run(stage: str, log: str, inputs: dict[str, Any] | None) -> tuple[Any, ...]:
        import os  # noqa: PLC0415
        import socket  # noqa: PLC0415
        import sys  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        folder = Path(os.environ.get("BENCH_PROJECT", project))
        if not (folder / "dvc.yaml").is_file():
            node = socket.gethostname()
            return (f"{node}: {folder}: not there, wanted the project at the same path on all, or BENCH_PROJECT",)
        if code not in sys.path:
            sys.path[:0] = [str(folder), code]
        if by_remote is None:
            from bench.sweep.process import run_to_end  # noqa: PLC0415

            return (run_to_end(folder, stage, folder / log, environment, grace),)
        from bench.sweep.remote import Shared, run_in_clone  # noqa: PLC0415

        ended = run_in_clone(folder, stage, folder / log, environment, grace, Shared(*by_remote), inputs or {})
        return tuple(ended)

    return run
