"""Which stage may run next."""

from collections.abc import Iterable, Mapping, Set


class Schedule:
    """Stages that wait, run, are done, have failed, or are blocked by one that failed.

    Args:
        needs: stage -> those that must be done before, in the order of preference; stages that are not in `work` count
            as done.
        work: those to run.
    """

    def __init__(self, needs: Mapping[str, Set[str]], work: Iterable[str]) -> None:
        wanted = set(work)
        self.needs = {stage: needed & wanted for stage, needed in needs.items() if stage in wanted}
        self.waiting = list(self.needs)
        self.running: set[str] = set()
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}  # stage -> why
        self.blocked: dict[str, str] = {}  # stage -> the failed one

    @property
    def ready(self) -> list[str]:
        return [stage for stage in self.waiting if self.needs[stage] <= self.done]

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.running

    def start(self, stage: str) -> None:
        self.waiting.remove(stage)
        self.running.add(stage)

    def finish(self, stage: str, why_failed: str | None) -> None:
        """A stage has ended, well where there is no reason why it failed."""
        self.running.remove(stage)
        if why_failed is None:
            self.done.add(stage)
            return
        self.failed[stage] = why_failed
        lost = {stage}
        for name in list(self.waiting):  # in order, so that one pass is enough
            if self.needs[name] & lost:
                lost.add(name)
                self.waiting.remove(name)
                self.blocked[name] = stage
