"""Stages on the nodes of a cluster that share no files: each node has a clone, and all share a DVC remote."""

from concurrent.futures import Future, ThreadPoolExecutor

from bench.errors import UserError
from bench.sweep.cluster import RayRunner, reason
from bench.sweep.local import LocalRunner
from bench.sweep.pipeline import Pipeline
from bench.sweep.process import log_file
from bench.sweep.remote import Entries, is_kept, push, read_entries, take_over

STOPPED = "stopped before it began"


class CloneRunner:
    """What a stage reads is pushed, a node runs it, and what it wrote is pulled.

    Stages of whose outputs DVC keeps no copy, the pages, run here, and so do those that DVC need not run, as it has the
    outputs of the same inputs.
    """

    def __init__(self, cluster: RayRunner, here: LocalRunner, pipeline: Pipeline, remote: str) -> None:
        self.cluster, self.here, self.pipeline, self.remote = cluster, here, pipeline, remote
        self.project, self.logs = cluster.project, cluster.logs
        self._pool = ThreadPoolExecutor(max_workers=1)  # DVC does one thing at a time
        self._pushed: set[str] = set()
        self._before: dict[str, Future[Entries | None]] = {}  # what they read is pushed
        self._waiting: list[str] = []  # for room here
        self._after: dict[str, Future[None]] = {}  # what they wrote is pulled
        self._stopped = False

    @property
    def has_room(self) -> bool:
        jobs = self.cluster.jobs
        return jobs is None or len(self.cluster.running) + len(self._before) < jobs

    def start(self, stage: str) -> None:
        if stage in self.pipeline.uncached:
            self._waiting.append(stage)
        else:
            self._before[stage] = self._pool.submit(self._prepare, stage)

    def _prepare(self, stage: str) -> Entries | None:
        """What the node must know of that which the stage reads, once it is pushed; None where it need not run."""
        if is_kept(self.project, stage):
            return None
        needed = self.pipeline.needs[stage] - self.pipeline.uncached
        push(self.project, self.remote, sorted(needed - self._pushed))
        self._pushed |= needed
        return read_entries(self.project, needed) if needed else {}

    def has_begun(self, stage: str) -> bool:
        """Whether it was handed over: only the node knows more."""
        return stage in self.cluster.running or self.here.has_begun(stage)

    def finished(self) -> dict[str, str | None]:
        """Stages that have ended, and whose outputs are here, since the last call, each with why it failed, or None."""
        found = self.here.finished()
        for stage, ended in self.cluster.ended().items():
            log = log_file(self.logs, stage)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(ended.log)
            if ended.why_failed is None:
                self._pushed.add(stage)
                self._after[stage] = self._pool.submit(take_over, self.project, self.remote, stage, ended.entry)
            else:
                found[stage] = f"{ended.why_failed} (its end: {log})" if ended.log else ended.why_failed
        for stage in [stage for stage, future in self._after.items() if future.done()]:
            error = self._after.pop(stage).exception()
            found[stage] = None if error is None else reason(error)
        return found | self._hand_over() | self._start_here()

    def _hand_over(self) -> dict[str, str | None]:
        """Send to the nodes what is prepared; what cannot be, each with the reason."""
        found: dict[str, str | None] = {}
        for stage in [stage for stage, future in self._before.items() if future.done()]:
            future = self._before.pop(stage)
            if self._stopped:
                found[stage] = STOPPED
            elif error := future.exception():
                found[stage] = reason(error)
            elif (inputs := future.result()) is None:
                self._waiting.append(stage)
            else:
                self.cluster.submit(stage, inputs)
        return found

    def _start_here(self) -> dict[str, str | None]:
        """As many as there is room for; those that cannot run, each with the reason."""
        found: dict[str, str | None] = {}
        if self._stopped:
            found = dict.fromkeys(self._waiting, STOPPED)
            self._waiting.clear()
        while self._waiting and self.here.has_room:
            stage = self._waiting.pop(0)
            try:
                self.here.start(stage)
            except UserError as error:
                found[stage] = str(error)
        return found

    def interrupt(self) -> None:
        self.cluster.interrupt()
        self.here.interrupt()
        self._stopped = True
        for future in self._before.values():
            future.cancel()

    def kill(self) -> None:
        self.cluster.kill()
        self.here.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)
