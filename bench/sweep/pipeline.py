"""What DVC says of its stages: which are stale, and which need which."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dvc.repo.reproduce import get_active_graph, plan_repro

from bench.sweep.repository import opened


class Pipeline(NamedTuple):
    """Stages in an order in which `dvc repro` may run them."""

    needs: Mapping[str, frozenset[str]]  # stage -> those whose outputs it reads
    stale: frozenset[str]
    uncached: frozenset[str] = frozenset()  # those of whose outputs DVC keeps no copy
    always: frozenset[str] = frozenset()  # those that run whenever DVC does, and are not stale for that

    def upstream(self, stage: str) -> set[str]:
        """A stage with all that it needs, directly or not."""
        found: set[str] = set()
        waiting = [stage] if stage in self.needs else []
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.needs[name]
        return found

    def downstream(self, stages: Iterable[str]) -> set[str]:
        """Stages with all that need them, directly or not."""
        found = set(stages)
        for name, needed in self.needs.items():  # in order, so that one pass is enough
            if needed & found:
                found.add(name)
        return found

    def work(self) -> set[str]:
        """What may have to run: DVC itself skips a stage whose inputs turn out to be as before."""
        return self.downstream(self.stale)


def read_pipeline(project: Path) -> Pipeline:
    """Ask DVC.

    Raises:
        UserError: there is no DVC project, or DVC cannot read it.
    """
    with opened(project) as repo:
        graph = get_active_graph(repo.index.graph)
        order = plan_repro(graph, repo.stage.collect("dvc.yaml"))
        status = repo.status()
        needs = {
            stage.addressing: frozenset(needed.addressing for needed in graph.successors(stage)) for stage in order
        }
        uncached = {stage.addressing for stage in order if not all(out.use_cache for out in stage.outs)}
        always = {stage.addressing for stage in order if stage.always_changed}
    stale = {stage for stage, reasons in status.items() if reasons != ["always changed"]}
    return Pipeline(needs, frozenset(stale) & needs.keys(), frozenset(uncached), frozenset(always))
