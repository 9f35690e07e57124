"""Run what is stale, several stages at once: `dvc repro` then has nothing left to do.

DVC alone says what is stale and writes what has run, so one may stop a sweep, go on by `dvc repro`, and the other way.
"""

import fcntl
import re
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Protocol

import typer
from rich.console import Console

from bench.errors import UserError
from bench.resolve import load_grid
from bench.stages.command import run_command
from bench.stages.files import plan_dir
from bench.sweep.clones import CloneRunner
from bench.sweep.cluster import RayRunner
from bench.sweep.display import Display, outcome, print_failures
from bench.sweep.local import LocalRunner, count_jobs, visible_gpus
from bench.sweep.params import SweepParams
from bench.sweep.pipeline import Pipeline, read_pipeline
from bench.sweep.process import WHOLE, log_file
from bench.sweep.remote import Shared, check_remote, commit_of
from bench.sweep.schedule import Schedule

PLAN = "resolve"
"""The stage that others are stale by: what it writes must be there before they are asked."""
UP_TO_DATE = "Data and pipelines are up to date."
STOPPED = 130
GRACE = 60.0
"""Seconds that stages have to end on Ctrl-C; again, and they are killed."""


class Runner(Protocol):
    """What runs stages."""

    @property
    def has_room(self) -> bool: ...
    def start(self, stage: str) -> None: ...
    def has_begun(self, stage: str) -> bool: ...
    def finished(self) -> dict[str, str | None]: ...
    def interrupt(self) -> None: ...
    def kill(self) -> None: ...


def main(
    jobs: Annotated[int | None, typer.Option(min=1, help="stages at once; as many as the machine takes")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="of a Ray cluster that runs")] = None,
    remote: Annotated[
        str | None, typer.Option(metavar="NAME", help="of DVC, by which the nodes of a cluster share, as clones")
    ] = None,
    project: Annotated[Path, typer.Option(help="its folder, at the same path on all nodes")] = Path(),
) -> None:
    """Run every stale stage of the pipeline, each as soon as what it needs is there."""
    project = project.resolve()
    if remote and not ray:
        raise UserError("--remote: found no --ray, wanted the address of the cluster whose nodes share it")
    grid = load_grid(project / "params.yaml")
    logs = project / plan_dir(grid.profile).parent / "logs"
    console = Console()
    try:
        with only_sweep(project):
            pipeline = plan(project, logs, Display(console, logs))
            if not pipeline.stale:
                console.print(UP_TO_DATE)
                return
            if ray and remote:
                runner: Runner = open_clones(project, logs, jobs, ray, remote, grid.sweep, pipeline)
            elif ray:
                runner = RayRunner(project, logs, jobs, ray, grid.sweep)
            else:
                runner = open_local(project, logs, jobs, grid.sweep, console)
            sweep(pipeline, runner, Display(console, logs))
            confirm(project, logs, console)
    except KeyboardInterrupt:
        raise SystemExit(STOPPED) from None


def open_clones(
    project: Path, logs: Path, jobs: int | None, ray: str, remote: str, params: SweepParams, pipeline: Pipeline
) -> CloneRunner:
    """A cluster whose nodes have clones of what is committed here.

    Raises:
        UserError: there is no such cluster or remote, or something is not committed.
    """
    check_remote(project, remote)
    shared = Shared(remote, commit_of(project))
    pages = params.model_copy(update={"gpus": 0})  # which need none
    here = LocalRunner(project, logs, count_jobs(None, pages, gpus=()))
    return CloneRunner(RayRunner(project, logs, jobs, ray, params, shared), here, pipeline, remote)


def open_local(project: Path, logs: Path, jobs: int | None, params: SweepParams, console: Console) -> LocalRunner:
    """This machine, which says so if it cannot take all that were asked for.

    Raises:
        UserError: it lacks GPUs.
    """
    gpus = visible_gpus()
    most = count_jobs(jobs, params, gpus)
    if jobs and most < jobs:
        console.print(f"{most} at once, not {jobs}: this machine has room for no more (params.yaml: sweep)")
    return LocalRunner(project, logs, most, gpus, params.gpus)


def plan(project: Path, logs: Path, display: Display) -> Pipeline:
    """What is stale, once the stage that looks has run, here.

    Raises:
        SystemExit: 1 where it failed, 130 where the sweep was stopped.
    """
    pipeline = read_pipeline(project)
    work = (pipeline.work() | pipeline.always) & pipeline.upstream(PLAN)
    if not work:
        return pipeline
    ended = run(pipeline, work, LocalRunner(project, logs, jobs=1), display)
    if ended.failed:
        for stage in pipeline.needs:  # of the rest none can run
            cause = next((name for name in ended.failed if stage in pipeline.downstream([name])), None)
            if cause and stage not in ended.failed:
                ended.blocked.setdefault(stage, cause)
        fail(display.console, ended)
    return read_pipeline(project)


def sweep(pipeline: Pipeline, runner: Runner, display: Display) -> None:
    """Run what is stale.

    Raises:
        SystemExit: 1 where a stage failed, 130 where the sweep was stopped.
    """
    ended = run(pipeline, pipeline.work(), runner, display)
    if ended.failed:
        fail(display.console, ended)


def run(pipeline: Pipeline, work: Iterable[str], runner: Runner, display: Display) -> Schedule:
    """Run stages in the order of the graph until all have ended.

    Raises:
        SystemExit: the sweep was stopped.
    """
    schedule = Schedule(pipeline.needs, work)
    for stage in schedule.waiting:
        display.change(stage, "waiting")
    with signals_counted() as signals, display.shown():
        while not schedule.is_over and not signals:
            for stage in schedule.ready:
                if runner.has_room:
                    start(stage, schedule, runner, display)
            collect(schedule, runner, display)
            display.refresh()
            time.sleep(0.05)
        if signals:
            stop(signals, schedule, runner, display)
    if signals:
        display.console.print("stopped; run it again to go on")
        raise SystemExit(STOPPED)
    return schedule


def start(stage: str, schedule: Schedule, runner: Runner, display: Display) -> None:
    schedule.start(stage)
    display.change(stage, "queued")
    try:
        runner.start(stage)
    except UserError as error:
        finish(stage, str(error), schedule, display)


def collect(schedule: Schedule, runner: Runner, display: Display) -> None:
    """What has begun, and what has ended."""
    for stage in schedule.running:
        if display.states[stage] == "queued" and runner.has_begun(stage):
            display.change(stage, "running")
    for stage, why in runner.finished().items():
        finish(stage, why, schedule, display)


def finish(stage: str, why_failed: str | None, schedule: Schedule, display: Display) -> None:
    before = set(schedule.blocked)
    schedule.finish(stage, why_failed)
    display.change(stage, "failed" if why_failed else outcome(log_file(display.logs, stage)))
    for lost in schedule.blocked.keys() - before:
        display.change(lost, "blocked")


def stop(signals: list[int], schedule: Schedule, runner: Runner, display: Display) -> None:
    """Let what runs end; kill it at the second signal, or after a while."""
    deadline = time.monotonic() + GRACE
    while schedule.running and len(signals) == 1 and time.monotonic() < deadline:
        runner.interrupt()
        for stage, why in runner.finished().items():
            schedule.running.remove(stage)
            display.change(stage, "stopped" if why else outcome(log_file(display.logs, stage)))
        display.refresh()
        time.sleep(0.1)
    runner.kill()


def confirm(project: Path, logs: Path, console: Console) -> None:
    """End with a plain `dvc repro`, which should find nothing to do but to look; what it finds, it runs.

    Raises:
        SystemExit: 1 where it failed, 130 where it was stopped.
    """
    display = Display(Console(quiet=True), logs)
    ended = run(Pipeline({WHOLE: frozenset()}, frozenset()), [WHOLE], LocalRunner(project, logs, jobs=1), display)
    if ended.failed:
        fail(console, ended)
    log = log_file(logs, WHOLE)
    ran = set(re.findall(r"Running (?:callback )?stage '(.+)'", log.read_text(encoding="utf-8", errors="replace")))
    console.print(UP_TO_DATE if ran <= {PLAN} else f"`{WHOLE}` had more to do, see {log}", soft_wrap=True)


def fail(console: Console, ended: Schedule) -> None:
    print_failures(console, ended)
    raise SystemExit(1)


@contextmanager
def signals_counted() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted and no more: where they come must not matter."""
    found: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        found.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_sweep(project: Path) -> Iterator[None]:
    """One sweep of a project at a time; SIGTERM is as Ctrl-C.

    Raises:
        UserError: there is no DVC project, or another sweep of it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = project / ".dvc" / "tmp"
    if not folder.parent.is_dir():
        raise UserError(f"{project}: not a DVC project, wanted the folder of dvc.yaml")
    folder.mkdir(exist_ok=True)
    with (folder / "sweep.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{project}: another sweep runs here, wanted one at a time") from None
        yield


if __name__ == "__main__":
    run_command(main)
