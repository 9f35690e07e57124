"""DVC in a process of its own that never outlives the one that started it.

Every process of a stage is in one group. A watcher in it waits for the end of a pipe that only the starter holds, and
kills the group then: so nothing is left where a sweep, or a node of a cluster, is killed.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import psutil

from bench.errors import UserError

WHOLE = "dvc repro"
"""The whole pipeline, in place of a stage."""
SECONDS_TO_END = 30.0
"""Of a run that was killed, elsewhere, until its last process is gone."""
WATCHED = """
exec 3<&0 </dev/null
{ cat; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class DvcProcess:
    """`dvc repro` of one stage, in a group of processes of its own.

    Args:
        project: the folder of `dvc.yaml`.
        stage: its name, or WHOLE.
        log: file of all output.
        environment: what it has besides this process's.

    Raises:
        UserError: the log cannot be written, or the stage runs already.
    """

    def __init__(self, project: Path, stage: str, log: Path, environment: Mapping[str, str]) -> None:
        with open_log(log) as file:
            drop_killed(project, stage)
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", WATCHED, "sh", *dvc_command(stage)],
                cwd=project,
                env=stage_environment(environment),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._told: set[int] = set()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        code = self.process.poll()
        if code is not None:
            self.kill()  # what the stage has left running
        return code

    def interrupt(self) -> None:
        """Ctrl-C for the stage's command alone, once: DVC then ends by itself, its lock and files in order.

        To be called until `poll` says that it has ended, as DVC may just be about to start the command.
        """
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                if process.pid not in self._told:
                    self._told.add(process.pid)
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGINT)  # the watcher is deaf to it

    def kill(self) -> None:
        """Every process of the stage, at once."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def dvc_command(stage: str) -> list[str]:
    target = [] if stage == WHOLE else ["--single-item", stage]
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *target]


def stage_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """With the `python` of this process first in the path, and output line by line."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **changes}


def open_log(log: Path) -> BinaryIO:
    """An empty log that is locked for as long as a process writes to it.

    Raises:
        UserError: it cannot be written, or another run of the stage does not end.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab")
    except OSError as error:
        raise UserError(f"{log}: cannot be written ({error.strerror})") from error
    deadline = time.monotonic() + SECONDS_TO_END
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise UserError(f"{log}: another process still writes to it, wanted one run of a stage") from None
            time.sleep(0.1)
        else:
            file.truncate(0)
            return file


def drop_killed(project: Path, stage: str) -> None:
    """Forget that a process which was killed was at work on this stage.

    DVC asks whether it still lives by its id, on this machine: on another, or after a while, that is someone else's.
    """
    ending = f" --wait-for-lock repro --single-item {stage}"
    folder = project / ".dvc" / "tmp"
    try:
        if f'{ending}"' not in (folder / "rwlock").read_text(encoding="utf-8"):
            return
    except OSError:
        return  # nobody is at work
    from dvc.fs import localfs  # noqa: PLC0415 - a second to import, for once in a while
    from dvc.rwlock import _edit_rwlock  # noqa: PLC0415

    with _edit_rwlock(str(folder), localfs, False) as entries:
        for path, entry in list(entries["write"].items()):
            if entry["cmd"].endswith(ending):
                del entries["write"][path]
        for path, several in list(entries["read"].items()):
            entries["read"][path] = [entry for entry in several if not entry["cmd"].endswith(ending)]
            if not entries["read"][path]:
                del entries["read"][path]


def log_file(folder: Path, stage: str) -> Path:
    return folder / f"{stage.replace('/', '_').replace(' ', '_')}.log"


def why_failed(code: int, log: Path) -> str | None:
    return None if code == 0 else f"exit code {code}, see {log}"


def run_to_end(project: Path, stage: str, log: Path, environment: Mapping[str, str], grace: float) -> str | None:
    """Run a stage and wait; on a KeyboardInterrupt it gets `grace` seconds to end.

    Returns:
        why it failed, or None.
    """
    process = DvcProcess(project, stage, log, environment)
    try:
        while (code := process.poll()) is None:
            time.sleep(0.1)
        return why_failed(code, log)
    except KeyboardInterrupt:
        end([process], grace)
        raise
    finally:
        process.kill()


def end(processes: Sequence[DvcProcess], grace: float) -> None:
    """Interrupt processes, and kill those that go on."""
    deadline = time.monotonic() + grace
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        for process in processes:
            process.interrupt()
        time.sleep(0.1)
    for process in processes:
        process.kill()
