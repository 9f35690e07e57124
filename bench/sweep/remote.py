"""Inputs and outputs of stages by a DVC remote, between clones that share no files.

Whoever has run a stage pushes its outputs and hands over its part of `dvc.lock`; whoever needs them puts that part into
its own `dvc.lock` and pulls. So DVC says on every side what is stale, and by the same hashes.
"""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, modify_yaml

from bench.errors import UserError
from bench.sweep.process import run_to_end

Entries = dict[str, Any]
"""Stage -> its part of `dvc.lock`: the hashes of what it read and wrote."""
LOCK = "dvc.lock"
WRITTEN = (LOCK, "reports")
"""What a sweep itself changes of the files in git."""
TAIL = 65_536  # bytes of a log that a node hands over


class Ended(NamedTuple):
    """A stage that has ended elsewhere."""

    why_failed: str | None
    entry: Any = None  # its part of `dvc.lock`, where that is not shared
    log: bytes = b""  # the end of it, where that is not shared


def commit_of(project: Path) -> str:
    """The commit that a clone is at.

    Raises:
        UserError: it is none, or has edits that other clones lack.
    """
    try:
        commit = _git(project, "rev-parse", "HEAD")
        edits = _git(project, "status", "--porcelain", "--untracked-files=no", ".", *(f":!{name}" for name in WRITTEN))
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{project}: not a clone by git, wanted one, as --remote compares commits") from error
    if edits:
        raise UserError(
            f"{project}: found edits that are not committed ({edits.split()[-1]}), wanted none with --remote"
        )
    return commit


def _git(project: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def opened(project: Path) -> Iterator[Repo]:
    """DVC's project, which waits for its lock as `dvc --wait-for-lock` does.

    Raises:
        UserError: DVC cannot do what it is asked for.
    """
    try:
        with Repo(str(project), _wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        raise UserError(f"{project}: {' '.join(str(error).split())}") from error


def check_remote(project: Path, remote: str) -> None:
    """Raises:
    UserError: DVC knows no such remote.
    """
    with opened(project) as repo:
        known = sorted(repo.config["remote"])
    if remote not in known:
        wanted = f"one of {', '.join(known)}" if known else "one made by `dvc remote add`"
        raise UserError(f"--remote: found {remote!r}, wanted {wanted}")


def read_entries(project: Path) -> Entries:
    """Of all stages that have run."""
    file = project / LOCK
    return dict(load_yaml(str(file)).get("stages", {})) if file.is_file() else {}


def targets_of(project: Path, stages: Iterable[str]) -> list[str]:
    """Stages as DVC finds them from any folder."""
    return [f"{project / 'dvc.yaml'}:{stage}" for stage in stages]


def push(project: Path, remote: str, stages: Iterable[str]) -> None:
    """Outputs of stages, and the run cache.

    Raises:
        UserError: the remote takes them not.
    """
    if targets := targets_of(project, stages):
        with opened(project) as repo:
            repo.push(targets=targets, remote=remote, run_cache=True)


def pull(project: Path, remote: str, entries: Mapping[str, Any]) -> None:
    """Take over stages that have run elsewhere: their parts of `dvc.lock`, and their outputs.

    Raises:
        UserError: the remote has them not.
    """
    if not entries:
        return
    with opened(project) as repo:
        with repo.lock, modify_yaml(str(project / LOCK)) as content:
            content.setdefault("schema", "2.0")
            content.setdefault("stages", {}).update(entries)
        repo.pull(targets=targets_of(project, entries), remote=remote)


class Shared(NamedTuple):
    """How the clones of a sweep share: by which remote, and the commit that all must be at."""

    remote: str
    commit: str


def run_in_clone(
    project: Path,
    stage: str,
    log: Path,
    environment: Mapping[str, str],
    grace: float,
    shared: Shared,
    inputs: Entries,
) -> Ended:
    """On a node: pull what a stage reads, run it as `run_to_end` does, push what it has written."""
    try:
        if (found := commit_of(project)) != shared.commit:
            raise UserError(f"{project}: at commit {found[:12]}, wanted {shared.commit[:12]} on all nodes")
        pull(project, shared.remote, inputs)
        why = run_to_end(project, stage, log, environment, grace)
        if why is None:
            push(project, shared.remote, [stage])
    except UserError as error:
        return Ended(str(error))
    return Ended(why, None if why else read_entries(project)[stage], log.read_bytes()[-TAIL:])
