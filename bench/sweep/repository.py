"""DVC's view of a project."""

import logging
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo

from bench.errors import UserError


@contextmanager
def opened(project: Path) -> Iterator[Repo]:
    """DVC's project, from its folder and under its lock, for which it waits as `dvc --wait-for-lock` does.

    So nobody else writes `dvc.lock`, and stages go by their names.

    Raises:
        UserError: there is no DVC project, or DVC or a file of it fails.
    """
    try:
        with quiet(), Repo(str(project), _wait_for_lock=True) as repo, lock_repo(repo), chdir(project):
            yield repo
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{project}: DVC: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without DVC's warnings, of stages that are frozen on purpose, say, and its bars, which would garble a table."""
    logger = logging.getLogger("dvc")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
