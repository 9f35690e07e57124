"""What DVC says of its stages: which are stale, and which need which."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro

from bench.errors import UserError


class Pipeline(NamedTuple):
    """Stages in an order in which `dvc repro` may run them."""

    needs: Mapping[str, frozenset[str]]  # stage -> those whose outputs it reads
    stale: frozenset[str]
    uncached: frozenset[str] = frozenset()  # those of whose outputs DVC keeps no copy

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
    with only_errors():
        try:
            # It waits for DVC's lock, as `dvc --wait-for-lock` does.
            with chdir(project), Repo(str(project), _wait_for_lock=True) as repo:  # DVC names stages from where one is
                graph = get_active_graph(repo.index.graph)
                order = plan_repro(graph, repo.stage.collect("dvc.yaml"))
                stale = repo.status()
                needs = {
                    stage.addressing: frozenset(needed.addressing for needed in graph.successors(stage))
                    for stage in order
                }
                uncached = {stage.addressing for stage in order if not all(out.use_cache for out in stage.outs)}
        except DvcException as error:
            raise UserError(f"{project}: DVC cannot read the pipeline: {' '.join(str(error).split())}") from error
    return Pipeline(needs, frozenset(stale) & needs.keys(), frozenset(uncached))


@contextmanager
def only_errors() -> Iterator[None]:
    """Without DVC's warnings, of stages that are frozen on purpose, say."""
    logger = logging.getLogger("dvc")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
