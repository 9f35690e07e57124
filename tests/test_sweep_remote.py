"""A sweep over clones that share no files but a DVC remote."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.sweep.pipeline import read_pipeline
from bench.sweep.remote import Ended, Shared, check_remote, commit_of, pull, read_entries, run_in_clone
from tests.test_sweep import UP_TO_DATE, Project, cluster_stages, wait

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
        git(self.project.root, "add", ".")
        git(self.project.root, "commit", "-q", "-m", "all")
        self.nodes = [folder / name for name in names]
        for node in self.nodes:
            git(folder, "clone", "-q", str(self.project.root), str(node))
        self.shared = Shared(REMOTE, commit_of(self.project.root))

    def run_on(self, node: Path, stage: str, *inputs: str) -> Ended:
        entries = read_entries(self.project.root)
        log = node / "runs" / f"{stage}.log"
        return run_in_clone(node, stage, log, {}, 5.0, self.shared, {name: entries[name] for name in inputs})

    def ran_on(self, node: Path) -> list[str]:
        return (node / "ran").read_text().split() if (node / "ran").exists() else []


PAGE = {
    "page": {"cmd": "mkdir -p pages && cat end > pages/page", "deps": ["end"], "outs": [{"pages": {"cache": False}}]}
}


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path, cluster_stages(0) | PAGE, ("one", "two"))


def test_what_one_clone_makes_another_reads(clones: Clones) -> None:
    here, (one, two) = clones.project.root, clones.nodes
    for node, stage, inputs in ((one, "resolve", ()), (two, "work_0", ("resolve",))):
        ended = clones.run_on(node, stage, *inputs)
        assert ended.why_failed is None
        assert b"Running stage" in ended.log
        pull(here, REMOTE, {stage: ended.entry})
    assert (here / "work_0").read_text() == "1\n"
    assert [clones.ran_on(one), clones.ran_on(two), clones.project.ran()] == [["resolve"], ["work_0"], []]
    assert not {"resolve", "work_0"} & read_pipeline(here).stale


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
    assert ended == Ended(f"{node}: at commit {commit_of(node)[:12]}, wanted {clones.shared.commit[:12]} on all nodes")
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
    with pytest.raises(UserError, match=r"here: .*"):
        pull(clones.project.root, REMOTE, {"resolve": ended.entry})


def test_a_remote_without_a_cluster(clones: Clones) -> None:
    code, said = clones.project.sweep("--remote", REMOTE)
    assert (code, said.strip()) == (
        1,
        "error: --remote: found no --ray, wanted the address of the cluster whose nodes share it",
    )


@pytest.fixture
def cluster(clones: Clones) -> Iterator[Any]:
    """Ray on two nodes, each with its own clone, and a head that runs none."""
    pytest.importorskip("ray", reason="Ray is an extra")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        for node in clones.nodes:
            cluster.add_node(num_cpus=1, env_vars={"BENCH_PROJECT": str(node)}, **small)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_nodes_share_nothing_and_one_dies(cluster: Any, clones: Clones) -> None:
    """Nothing but the page runs here, and DVC has nothing left to do."""
    project = clones.project
    sweep = project.start("--ray", cluster.address, "--remote", REMOTE)
    wait(lambda: any(len(clones.ran_on(node)) >= 3 for node in clones.nodes) or sweep.poll() is not None)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    said, complaints = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, said + complaints
    assert said.splitlines()[-1] == UP_TO_DATE
    assert (project.root / "pages/page").read_text() == "1\n" * 7
    assert project.ran() == ["page"]
    assert {name for node in clones.nodes for name in clones.ran_on(node)} == {
        "resolve",
        "end",
        *(f"work_{i}" for i in range(7)),
    }
    assert UP_TO_DATE in project.dvc("repro")
    assert UP_TO_DATE in project.sweep("--ray", cluster.address, "--remote", REMOTE)[1]


@pytest.mark.slow
def test_stopped_it_goes_on(cluster: Any, clones: Clones) -> None:
    project = clones.project
    sweep = project.start("--ray", cluster.address, "--remote", REMOTE)
    wait(lambda: any(len(clones.ran_on(node)) >= 2 for node in clones.nodes) or sweep.poll() is not None)
    sweep.send_signal(signal.SIGINT)
    said, complaints = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, said + complaints
    code, said = project.sweep("--ray", cluster.address, "--remote", REMOTE)
    assert code == 0, said
    assert UP_TO_DATE in project.dvc("repro")


pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("sh"), reason="for a POSIX shell")
