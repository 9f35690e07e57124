"""A sweep over clones that share no files but a DVC remote."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench.errors import UserError
from bench.sweep import clones as clones_module
from bench.sweep import cluster as cluster_module
from bench.sweep.__main__ import open_clones, sweep
from bench.sweep.clones import CloneRunner
from bench.sweep.display import Display
from bench.sweep.pipeline import read_pipeline
from bench.sweep.remote import (
    UPDATE,
    Ended,
    Shared,
    check_remote,
    commit_of,
    is_kept,
    pull,
    read_entries,
    run_in_clone,
    take_over,
)
from tests.test_sweep import ONE_CPU, REPO, UP_TO_DATE, Project, cluster_stages, wait

REMOTE = "store"


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


class Clones:
    """A project in git with a remote, and a clone of it for every name; all note what ran in files of their own."""

    def __init__(self, folder: Path, stages: dict[str, Any], names: tuple[str, ...]) -> None:
        self.project = Project(folder / "here", stages)
        self.project.dvc("remote", "add", REMOTE, str(folder / "remote"))
        git(self.project.root, "init", "-q")
        (self.project.root / ".gitignore").write_text("ran\n*.here\nplan\nwork_*\nend\nruns\n")
        (self.project.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
        git(self.project.root, "add", ".")
        git(self.project.root, "commit", "-q", "-m", "all")
        self.nodes = [folder / name for name in names]
        for node in self.nodes:
            git(folder, "clone", "-q", str(self.project.root), str(node))
        self.shared = Shared(REMOTE, commit_of(self.project.root))

    def run_on(self, node: Path, stage: str, *inputs: str) -> Ended:
        entries = read_entries(self.project.root, inputs) if inputs else {}
        return run_in_clone(node, stage, node / "runs" / f"{stage}.log", {}, 5.0, self.shared, entries)

    def ran_on(self, node: Path) -> list[str]:
        return (node / "ran").read_text().split() if (node / "ran").exists() else []


PAGE = {
    "page": {"cmd": "mkdir -p pages && cat end > pages/page", "deps": ["end"], "outs": [{"pages": {"cache": False}}]}
}


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    work = {name: stage for name, stage in cluster_stages(0).items() if name in ("work_0", "work_1")}
    end = {"end": {"cmd": "cat work_0 work_1 > end", "deps": list(work), "outs": ["end"]}}
    return Clones(tmp_path, work | end | PAGE, ("one", "two"))


@pytest.fixture
def many(tmp_path: Path) -> Clones:
    return Clones(tmp_path, cluster_stages(0) | PAGE, ("one", "two"))


def test_what_one_clone_makes_another_reads(clones: Clones) -> None:
    here, (one, two) = clones.project.root, clones.nodes
    for node, stage, inputs in ((one, "resolve", ()), (two, "work_0", ("resolve",))):
        ended = clones.run_on(node, stage, *inputs)
        assert ended.why_failed is None
        assert b"Running stage" in ended.log
        take_over(here, REMOTE, stage, ended.entry)
    assert (here / "work_0").read_text() == "1\n"
    assert [clones.ran_on(one), clones.ran_on(two), clones.project.ran()] == [["resolve"], ["work_0"], []]
    assert not {"resolve", "work_0"} & read_pipeline(here).stale


def test_whether_inputs_come_again(clones: Clones) -> None:
    here, one = clones.project.root, clones.nodes[0]
    assert not is_kept(here, "resolve")
    take_over(here, REMOTE, "resolve", clones.run_on(one, "resolve").entry)
    assert is_kept(here, "resolve")
    (here / "source").write_text("2\n")
    assert not is_kept(here, "resolve")
    clones.project.dvc("repro", "resolve")
    (here / "source").write_text("1\n")
    assert is_kept(here, "resolve")


def test_only_what_dvc_keeps_can_be_shared(clones: Clones) -> None:
    assert read_pipeline(clones.project.root).uncached == {"page"}


def test_a_stage_that_fails_in_a_clone_tells_why(clones: Clones) -> None:
    """And the clone's part of the lock is not handed over."""
    ended = clones.run_on(clones.nodes[0], "work_0")  # without its input
    assert ended.why_failed
    assert ended.entry is None
    assert b"plan" in ended.log


def test_a_clone_of_another_commit_is_refused(clones: Clones) -> None:
    node = clones.nodes[0]
    git(node, "commit", "-q", "--allow-empty", "-m", "more")
    ended = clones.run_on(node, "resolve")
    found, wanted = commit_of(node)[:12], clones.shared.commit[:12]
    assert ended == Ended(f"{socket.gethostname()}: {node}: at commit {found}, wanted {wanted} (there: `{UPDATE}`)")
    assert clones.ran_on(node) == []


def test_edits_that_other_clones_lack_are_refused(clones: Clones) -> None:
    root = clones.project.root
    (root / "dvc.lock").write_text("schema: '2.0'\n")  # which is no edit
    commit_of(root)
    (root / "params.yaml").write_text("profile: b\n")
    with pytest.raises(UserError, match=r"here: found edits that are not committed \(params\.yaml\), wanted none"):
        commit_of(root)


def test_no_clone_by_git(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a clone by git, wanted one, as --remote compares commits"):
        commit_of(tmp_path)


def test_an_unknown_remote(clones: Clones) -> None:
    with pytest.raises(UserError, match="--remote: found 'stor', wanted one of store"):
        check_remote(clones.project.root, "stor")


def test_what_the_remote_has_not(clones: Clones, tmp_path: Path) -> None:
    """The part of the lock is there, the output is not."""
    ended = clones.run_on(clones.nodes[0], "resolve")
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(UserError, match=r"here: DVC: .*"):
        take_over(clones.project.root, REMOTE, "resolve", ended.entry)


def test_what_a_stopped_run_has_left_on_a_node_is_overwritten(clones: Clones) -> None:
    one, two = clones.nodes
    take_over(clones.project.root, REMOTE, "resolve", clones.run_on(one, "resolve").entry)
    (two / "plan").write_text("half of it")
    assert clones.run_on(two, "work_0", "resolve").why_failed is None
    assert (two / "work_0").read_text() == "1\n"


def test_files_that_only_a_node_has_are_named(clones: Clones) -> None:
    """Else DVC would run the stage again, here."""
    one = clones.nodes[0]
    git(one, "update-index", "--assume-unchanged", "source")
    (one / "source").write_text("2\n")
    ended = clones.run_on(one, "resolve")
    with pytest.raises(
        UserError, match=r"resolve: found other files on the node than here \(.*source\), wanted the same"
    ):
        take_over(clones.project.root, REMOTE, "resolve", ended.entry)


def test_entries_are_read_whole_while_others_write(clones: Clones) -> None:
    """DVC truncates `dvc.lock` before it writes."""
    here = clones.project.root
    entry = clones.run_on(clones.nodes[0], "resolve").entry
    take_over(here, REMOTE, "resolve", entry)
    with ThreadPoolExecutor() as pool:
        writes = [pool.submit(pull, here, REMOTE, {"resolve": entry}) for _ in range(5)]
        while not all(write.done() for write in writes):
            assert read_entries(here, ["resolve"]) == {"resolve": entry}
    for write in writes:
        write.result()


def test_a_remote_without_a_cluster(clones: Clones) -> None:
    code, said = clones.project.sweep("--remote", REMOTE)
    assert (code, said.strip()) == (
        1,
        "error: --remote: found no --ray, wanted the address of the cluster whose nodes share it",
    )


class InThisProcess:
    """What CloneRunner asks of Ray, by one node that does one thing at a time, in turn with the runner's own work."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1)  # a process has one working folder

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda run: SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=lambda *args: self.pool.submit(run, *args))
        )

    def wait(self, results: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return [result for result in results if result.done()], []

    def get(self, result: Any) -> Any:
        return result.result()

    def cancel(self, _: Any, *, force: bool) -> None:
        assert force


OpenSweep = Callable[[], CloneRunner]


@pytest.fixture
def open_sweep(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> OpenSweep:
    """A runner whose only node has the first clone."""
    node = InThisProcess()
    monkeypatch.setattr(cluster_module, "connect", lambda _: node)
    monkeypatch.setattr(clones_module, "ThreadPoolExecutor", lambda **_: node.pool)
    monkeypatch.setenv("BENCH_PROJECT", str(clones.nodes[0]))
    monkeypatch.syspath_prepend(REPO)
    root = clones.project.root
    return lambda: open_clones(root, root / "runs/demo/logs", None, "", REMOTE, ONE_CPU, read_pipeline(root))


def run_sweep(runner: CloneRunner) -> str:
    """What it says."""
    said = StringIO()
    with suppress(SystemExit):
        sweep(runner.pipeline, runner, Display(Console(file=said, width=1000), runner.logs))
    return said.getvalue()


@pytest.mark.slow
def test_inputs_that_come_again_cost_no_node_anything(clones: Clones, open_sweep: OpenSweep) -> None:
    """Only the page, of which DVC keeps no copy, is made anew, and here."""
    project, node = clones.project, clones.nodes[0]
    for source, num_on_node in (("1", 4), ("2", 8), ("1", 8)):
        (project.root / "source").write_text(f"{source}\n")
        git(project.root, "commit", "-q", "--allow-empty", "-am", source)
        subprocess.run(UPDATE, shell=True, cwd=node, check=True, capture_output=True)
        said = run_sweep(open_sweep())
        assert len(clones.ran_on(node)) == num_on_node, said
        assert project.ran() == ["page"]
        assert (project.root / "pages/page").read_text() == f"{source}\n" * 2
        assert not read_pipeline(project.root).stale
    assert "resolve: cached" in said


def test_a_node_that_cannot_is_named(clones: Clones, open_sweep: OpenSweep) -> None:
    git(clones.nodes[0], "commit", "-q", "--allow-empty", "-m", "more")
    last = run_sweep(open_sweep()).splitlines()[-1]
    assert last.startswith(f"failed: resolve: {socket.gethostname()}: {clones.nodes[0]}: at commit")
    assert "; not run: work_0, " in last
    assert clones.project.ran() == []


def test_a_node_without_the_project_is_named(
    clones: Clones, open_sweep: OpenSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_PROJECT", "/nowhere")
    last = run_sweep(open_sweep()).splitlines()[-1]
    assert last.startswith(f"failed: resolve: {socket.gethostname()}: /nowhere: not there, wanted the project at")


def test_a_log_comes_from_the_node(clones: Clones, open_sweep: OpenSweep) -> None:
    node, here = clones.nodes[0], clones.project.root / "runs/demo/logs/resolve.log"
    (node / "ran").mkdir()  # a file, for the stage
    last = run_sweep(open_sweep()).splitlines()[-1]
    there = node / "runs/demo/logs/resolve.log"
    why = f"exit code 255, see {there} (its end: {here})"
    assert last.startswith(f"failed: resolve: {socket.gethostname()}: {why}; not run: ")
    assert here.read_text() == there.read_text() != ""


def test_what_has_not_begun_is_let_go_when_stopped(clones: Clones, open_sweep: OpenSweep) -> None:
    runner = open_sweep()
    for stage in ("resolve", "work_0", "page"):
        runner.start(stage)
    runner.interrupt()
    ended: dict[str, str | None] = {}
    wait(lambda: ended.update(runner.finished()) or len(ended) == 3)
    assert set(ended.values()) == {"stopped before it began"}
    runner.kill()
    assert clones.project.ran() == clones.ran_on(clones.nodes[0]) == []


@pytest.fixture
def cluster(many: Clones) -> Iterator[Any]:
    """Ray on two nodes, each with its own clone, and a head that runs none."""
    pytest.importorskip("ray", reason="Ray is an extra")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        for node in many.nodes:
            cluster.add_node(num_cpus=1, env_vars={"BENCH_PROJECT": str(node)}, **small)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_nodes_share_nothing_and_one_dies(cluster: Any, many: Clones) -> None:
    """Nothing but the page runs here, and DVC has nothing left to do."""
    project = many.project
    sweep = project.start("--ray", cluster.address, "--remote", REMOTE)
    wait(lambda: any(len(many.ran_on(node)) >= 3 for node in many.nodes) or sweep.poll() is not None)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    said, complaints = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, said + complaints
    assert said.splitlines()[-1] == UP_TO_DATE
    assert (project.root / "pages/page").read_text() == "1\n" * 7
    assert project.ran() == ["page"]
    assert {name for node in many.nodes for name in many.ran_on(node)} == {
        "resolve",
        "end",
        *(f"work_{i}" for i in range(7)),
    }
    assert UP_TO_DATE in project.dvc("repro")
    assert UP_TO_DATE in project.sweep("--ray", cluster.address, "--remote", REMOTE)[1]


@pytest.mark.slow
def test_stopped_it_goes_on(cluster: Any, many: Clones) -> None:
    project = many.project
    sweep = project.start("--ray", cluster.address, "--remote", REMOTE)
    wait(lambda: any(len(many.ran_on(node)) >= 2 for node in many.nodes) or sweep.poll() is not None)
    sweep.send_signal(signal.SIGINT)
    said, complaints = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, said + complaints
    for folder in (project.root, *many.nodes):
        lock = folder / ".dvc/tmp/rwlock"
        assert not lock.exists() or not any(json.loads(lock.read_text()).values())  # nobody holds anything
    code, said = project.sweep("--ray", cluster.address, "--remote", REMOTE)
    assert code == 0, said
    assert UP_TO_DATE in project.dvc("repro")


pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("sh"), reason="for a POSIX shell")
