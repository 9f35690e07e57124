"""Inputs and outputs of stages by a DVC remote, between clones that share no files.

Whoever has run a stage pushes its outputs and hands over its part of `dvc.lock`; whoever needs them puts that part into
its own `dvc.lock` and pulls. So DVC says on every side what is stale, and by the same hashes.
"""

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import load_yaml, modify_yaml
from dvc_data.hashfile.hash_info import HashInfo

from bench.errors import UserError
from bench.git import git
from bench.sweep.process import run_to_end
from bench.sweep.repository import opened

Entries = dict[str, Any]
"""Stage -> its part of `dvc.lock`: the hashes of what it read and wrote."""
LOCK = "dvc.lock"
WRITTEN = (LOCK, "reports")
"""What a sweep itself changes of the files in git."""
UPDATE = f"git checkout HEAD {LOCK} && git pull"
"""Of a clone in which stages ran."""
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
    sources = [".", *(f":!{name}" for name in WRITTEN)]
    try:
        commit = git(project, "rev-parse", "HEAD")
        edits = git(project, "status", "--porcelain", "--untracked-files=no", *sources)
    except UserError as error:
        raise UserError(f"{project}: not a clone by git, wanted one, as --remote compares commits") from error
    if edits:
        raise UserError(
            f"{project}: found edits that are not committed ({edits.split()[-1]}), wanted none with --remote"
        )
    return commit


def check_remote(project: Path, remote: str) -> None:
    """Raises:
    UserError: DVC knows no such remote.
    """
    with opened(project) as repo:
        known = sorted(repo.config["remote"])
    if remote not in known:
        wanted = f"one of {', '.join(known)}" if known else "one made by `dvc remote add`"
        raise UserError(f"--remote: found {remote!r}, wanted {wanted}")


def read_entries(project: Path, stages: Iterable[str]) -> Entries:
    """Of stages that have run.

    Raises:
        UserError: DVC cannot read them.
    """
    with opened(project):  # others may write meanwhile
        entries = load_yaml(str(project / LOCK))["stages"]
    return {stage: entries[stage] for stage in sorted(stages)}


def push(project: Path, remote: str, stages: Iterable[str]) -> None:
    """Outputs of stages. Not the run cache, all of which DVC would copy every time: entries say as much.

    Raises:
        UserError: the remote takes them not.
    """
    if targets := list(stages):
        with opened(project) as repo:
            repo.push(targets, remote=remote)


def pull(project: Path, remote: str, entries: Entries) -> None:
    """Take over stages that have run elsewhere: their parts of `dvc.lock`, and their outputs.

    What a stopped run has left in place of these is overwritten, as by `dvc repro`.

    Raises:
        UserError: the remote has them not.
    """
    if entries:
        with opened(project) as repo:
            _pull(repo, remote, entries)


def _pull(repo: Repo, remote: str, entries: Entries) -> None:
    with modify_yaml(str(Path(repo.root_dir) / LOCK)) as content:
        content.setdefault("schema", "2.0")
        content.setdefault("stages", {}).update(entries)
    repo.pull(list(entries), remote=remote, force=True)


def take_over(project: Path, remote: str, stage: str, entry: Any) -> None:
    """As `pull`, and nothing is left to run: now, and when the same inputs come again after others.

    Raises:
        UserError: the remote has it not, or it read other files than are here.
    """
    with opened(project) as repo:
        _pull(repo, remote, {stage: entry})
        (taken,) = repo.stage.collect(stage)
        changed, _, _ = taken.changed_entries()
        if changed:
            other = ", ".join(changed)
            raise UserError(
                f"{stage}: found other files on the node than here ({other}), wanted the same, untracked too"
            )
        repo.stage_cache.save(taken)


def is_kept(project: Path, stage: str) -> bool:
    """Whether the outputs of a run with the same inputs are in DVC's cache, so that DVC need not run it.

    Raises:
        UserError: DVC cannot say.
    """
    with opened(project) as repo:
        (asked,) = repo.stage.collect(stage)
        if asked.changed_stage() or not asked.deps_cached():
            asked.save_deps()
            for out in asked.outs:
                out.hash_info = HashInfo()  # that of other inputs
        try:
            repo.stage_cache.restore(asked, dry=True)
        except RunCacheNotFoundError:
            return False
    return True


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
    node = socket.gethostname()
    try:
        if (found := commit_of(project)) != shared.commit:
            raise UserError(f"{project}: at commit {found[:12]}, wanted {shared.commit[:12]} (there: `{UPDATE}`)")
        pull(project, shared.remote, inputs)
        why = run_to_end(project, stage, log, environment, grace)
        end = log.read_bytes()[-TAIL:]
        if why is not None:
            return Ended(f"{node}: {why}", log=end)
        push(project, shared.remote, [stage])
        return Ended(None, read_entries(project, [stage])[stage], end)
    except UserError as error:
        return Ended(f"{node}: {error}")
