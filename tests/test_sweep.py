"""Stages several at once: small pipelines of shell commands, run by the command line as a user does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from ruamel.yaml import YAML

from bench.errors import UserError
from bench.sweep import local
from bench.sweep.cluster import check_reachable, connect
from bench.sweep.display import Display, last_line
from bench.sweep.local import LocalRunner, count_jobs
from bench.sweep.params import SweepParams
from bench.sweep.process import drop_killed
from bench.sweep.schedule import Schedule

REPO = Path(__file__).parents[1]
YAML_SAFE = YAML(typ="safe")
UP_TO_DATE = "Data and pipelines are up to date."
ONE_CPU = SweepParams(cpus=1, gpus=0, memory_gb=0.1)


class Project:
    """A pipeline of made-up stages; each notes in `ran` that it runs."""

    def __init__(self, root: Path, stages: dict[str, dict[str, Any]]) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        params = YAML_SAFE.load((REPO / "params.yaml").read_text())
        YAML_SAFE.dump(params | {"sweep": {"cpus": 0.25, "gpus": 0, "memory_gb": 0.1}}, root / "params.yaml")
        (root / "source").write_text("1\n")
        plan = {"cmd": "head -n 1 source > plan", "deps": ["source"], "outs": ["plan"]}
        stages = {
            name: stage | {"cmd": f"echo {name} >> ran && {stage['cmd']}"}
            for name, stage in {"resolve": plan, **stages}.items()
        }
        YAML_SAFE.dump({"stages": stages}, root / "dvc.yaml")
        self.dvc("init", "--no-scm", "--quiet")
        self.dvc("config", "core.analytics", "false")

    def dvc(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True).stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bench.sweep", *arguments],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sweep(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def ran(self) -> list[str]:
        """Stages that ran since the last call, in the order in which they began."""
        file = self.root / "ran"
        found = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def wait_for(self, name: str) -> str:
        file = self.root / name
        return wait(lambda: file.read_text().strip() if file.exists() else "")

    def is_unlocked(self) -> bool:
        return json.loads((self.root / ".dvc/tmp/rwlock").read_text()) == {}


def wait(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def meeting(own: str, other: str) -> str:
    """A command that ends only if the other one runs at the same time."""
    await_other = f"for i in $(seq 300); do test -e {other}.here && break; sleep 0.1; done; test -e {other}.here"
    return f"touch {own}.here && {{ {await_other}; }} && cp plan {own}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """Two stages that must meet and one that needs both, after a sweep, with what it said."""
    project = Project(
        tmp_path_factory.mktemp("sweep") / "project",
        {
            "end": {"cmd": "cat a b > end", "deps": ["a", "b"], "outs": ["end"]},
            "a": {"cmd": meeting("a", "b"), "deps": ["plan"], "outs": ["a"]},
            "b": {"cmd": meeting("b", "a"), "deps": ["plan"], "outs": ["b"]},
        },
    )
    code, said = project.sweep("--jobs", "2")
    assert code == 0, said
    return project, said


def test_stages_run_in_the_order_of_the_graph_and_at_once(finished: tuple[Project, str]) -> None:
    project, said = finished
    ran = project.ran()
    assert (ran[0], set(ran[1:3]), ran[3:]) == ("resolve", {"a", "b"}, ["end"])
    assert (project.root / "end").read_text() == "1\n1\n"
    assert said.splitlines()[-1] == UP_TO_DATE


def test_afterwards_there_is_nothing_to_do(finished: tuple[Project, str]) -> None:
    project, _ = finished
    project.ran()
    assert UP_TO_DATE in project.dvc("repro")
    assert project.sweep() == (0, f"{UP_TO_DATE}\n")
    assert project.ran() == []


def test_a_plan_that_stays_the_same_runs_nothing_else(finished: tuple[Project, str]) -> None:
    project, _ = finished
    project.ran()
    (project.root / "source").write_text("1\na remark\n")
    code, said = project.sweep()
    assert (code, project.ran()) == (0, ["resolve"])
    assert "end" not in said


def test_a_stage_fails_alone(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        {
            "bad": {"cmd": "test -e mended && touch bad", "deps": ["plan"], "outs": ["bad"]},
            "after_bad": {"cmd": "touch after_bad", "deps": ["bad"], "outs": ["after_bad"]},
            "good": {"cmd": "sleep 1 && touch good", "deps": ["plan"], "outs": ["good"]},
            "after_good": {"cmd": "touch after_good", "deps": ["good"], "outs": ["after_good"]},
        },
    )
    code, said = project.sweep("--jobs", "2")
    log = project.root / "runs/demo/logs/bad.log"
    assert code == 1
    assert said.splitlines()[-1] == f"failed: bad: exit code 255, see {log}; not run: after_bad"
    assert "failed to run: echo bad" in log.read_text()
    assert set(project.ran()) == {"resolve", "bad", "good", "after_good"}
    assert project.is_unlocked()
    (project.root / "mended").touch()
    assert project.sweep("--jobs", "2")[0] == 0
    assert project.ran() == ["bad", "after_bad"]
    assert UP_TO_DATE in project.dvc("repro")


def test_where_the_plan_fails_nothing_runs(tmp_path: Path) -> None:
    project = Project(tmp_path, {"a": {"cmd": "cp plan a", "deps": ["plan"], "outs": ["a"]}})
    (project.root / "source").unlink()
    code, said = project.sweep()
    assert code == 1
    assert said.splitlines()[-1].endswith("; not run: a")


SLOW = {
    "slow": {
        "cmd": "echo $$ > pid && for i in $(seq 600); do test -e go && break; sleep 0.1; done && touch slow",
        "deps": ["plan"],
        "outs": ["slow"],
    }
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_leaves_nothing_behind_and_goes_on(number: int, tmp_path: Path) -> None:
    project = Project(tmp_path, SLOW)
    sweep = project.start()
    pid = int(project.wait_for("pid"))
    sweep.send_signal(number)
    said, _ = sweep.communicate(timeout=30)
    assert sweep.returncode == 130
    assert said.splitlines()[-1] == "stopped; run it again to go on"
    assert not psutil.pid_exists(pid)
    assert project.is_unlocked()
    (project.root / "go").touch()
    code, said = project.sweep()
    assert code == 0, said
    assert project.ran() == ["resolve", "slow", "slow"]
    assert UP_TO_DATE in project.dvc("repro")


def test_a_killed_sweep_takes_its_stages_along(tmp_path: Path) -> None:
    project = Project(tmp_path, SLOW)
    sweep = project.start()
    pid = int(project.wait_for("pid"))
    code, said = project.sweep()
    assert (code, "another sweep runs here" in said) == (1, True)
    started = psutil.Process(sweep.pid).children(recursive=True)
    assert pid in {process.pid for process in started}
    sweep.kill()
    sweep.communicate()
    assert psutil.wait_procs(started, timeout=10)[1] == []
    (project.root / "go").touch()
    code, said = project.sweep()
    assert code == 0, said
    assert UP_TO_DATE in project.dvc("repro")


def test_what_a_killed_stage_held_is_free_though_another_has_its_number(tmp_path: Path) -> None:
    held = {"pid": os.getpid(), "cmd": "dvc --wait-for-lock repro --single-item a"}
    other = {"pid": os.getpid(), "cmd": "dvc --wait-for-lock repro --single-item aa"}
    folder = tmp_path / ".dvc/tmp"
    folder.mkdir(parents=True)
    before = {"write": {"/a": held, "/aa": other}, "read": {"/plan": [held, other], "/x": [held]}}
    (folder / "rwlock").write_text(json.dumps(before))
    drop_killed(tmp_path, "a")
    assert json.loads((folder / "rwlock").read_text()) == {"write": {"/aa": other}, "read": {"/plan": [other]}}


def test_failures_block_what_needs_them_and_no_more() -> None:
    needs = {"a": set(), "b": set(), "c": {"a"}, "d": {"c", "b"}, "e": {"b"}, "done": {"before"}}
    schedule = Schedule({"before": set(), **needs}, needs)
    assert schedule.ready == ["a", "b", "done"]
    for stage in ("a", "b"):
        schedule.start(stage)
    schedule.finish("a", "why")
    schedule.finish("b", None)
    assert (schedule.failed, schedule.blocked) == ({"a": "why"}, {"c": "a", "d": "a"})
    assert schedule.ready == ["e", "done"]


@pytest.mark.parametrize(
    ("asked", "params", "gpus", "jobs"),
    [
        (None, ONE_CPU, (), 8),
        (3, ONE_CPU, (), 3),
        (20, ONE_CPU, (), 8),
        (None, ONE_CPU.model_copy(update={"cpus": 3.0}), (), 2),
        (None, ONE_CPU.model_copy(update={"cpus": 30.0}), (), 1),
        (None, ONE_CPU.model_copy(update={"memory_gb": 1e9}), (), 1),
        (None, ONE_CPU.model_copy(update={"gpus": 1.0}), "012", 3),
        (None, ONE_CPU.model_copy(update={"gpus": 2.0}), "012", 1),
        (None, ONE_CPU.model_copy(update={"gpus": 0.5}), "01", 4),
    ],
)
def test_a_machine_bounds_how_many_run(
    asked: int | None, params: SweepParams, gpus: str, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "num_cores", lambda: 8)
    assert count_jobs(asked, params, gpus) == jobs


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(UserError, match=r"sweep\.gpus: found 2, wanted at most 1"):
        count_jobs(None, SweepParams(cpus=1, gpus=2, memory_gb=1), ["0"])


def test_cores_are_shared_out_and_gpus_go_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "num_cores", lambda: 8)
    runner = LocalRunner(tmp_path, tmp_path, 3, ["0", "1", "5"])
    assert [runner.environment(place) for place in (0, 2)] == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0"},
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "5"},
    ]
    assert LocalRunner(tmp_path, tmp_path, 2, "abcd", 2).environment(1)["CUDA_VISIBLE_DEVICES"] == "c,d"
    assert LocalRunner(tmp_path, tmp_path, 8).environment(5) == {"OMP_NUM_THREADS": "1"}


def test_parts_of_several_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gpus: found 1\.5, wanted a part of one GPU, or whole ones"):
        SweepParams(cpus=1, gpus=1.5, memory_gb=1)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed, wanted the extra `ray`"):
        connect("auto")


def test_the_table_shows_what_runs_with_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "train@a.log").write_text("epoch 1\repoch 2\nUpdating lock file 'dvc.lock'\n")
    console = Console(force_terminal=True, width=80, height=9, record=True)
    display = Display(console, tmp_path)
    with display.shown():
        for number in range(9):
            display.change(f"train@{number}", "waiting")
        display.change("train@a", "running")
    shown = console.export_text()
    assert "train@a" in shown
    assert "epoch 2" in shown
    assert "1 running, 9 waiting" in shown
    assert last_line(tmp_path / "none.log") == ""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Ray on two nodes that run stages, and a head that runs none."""
    pytest.importorskip("ray", reason="Ray is an extra")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        yield cluster
    finally:
        cluster.shutdown()


def cluster_stages(seconds: float) -> dict[str, dict[str, Any]]:
    work = {
        f"work_{i}": {"cmd": f"touch work_{i}.here && sleep {seconds} && cp plan work_{i}", "deps": ["plan"]}
        for i in range(7)
    }
    names = list(work)
    end = {"cmd": f"cat {' '.join(names)} > end", "deps": names, "outs": ["end"]}
    return {name: stage | {"outs": [name]} for name, stage in work.items()} | {"end": end}


def num_begun(project: Project) -> int:
    return len(list(project.root.glob("work_*.here")))


@pytest.mark.slow
def test_a_node_that_dies_costs_nothing_but_time(cluster: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, cluster_stages(2))
    sweep = project.start("--ray", cluster.address)
    wait(lambda: num_begun(project) >= 4 or sweep.poll())
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    said, complaints = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, said + complaints
    assert said.splitlines()[-1] == UP_TO_DATE
    assert (project.root / "end").read_text() == "1\n" * 7
    ran = project.ran()
    assert (set(ran), len(ran) > len(set(ran))) == ({"resolve", "end", *(f"work_{i}" for i in range(7))}, True)
    assert project.is_unlocked()
    assert UP_TO_DATE in project.dvc("repro")


@pytest.mark.slow
def test_a_sweep_stopped_on_a_cluster_goes_on_here(cluster: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, cluster_stages(3))
    sweep = project.start("--ray", cluster.address)
    wait(lambda: num_begun(project) >= 2 or sweep.poll())
    sweep.send_signal(signal.SIGINT)
    said, complaints = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, said + complaints
    assert project.is_unlocked()
    assert project.sweep("--jobs", "4")[0] == 0
    assert UP_TO_DATE in project.dvc("repro")


def test_no_cluster_at_the_address() -> None:
    with pytest.raises(UserError, match=r"--ray: no cluster at '127\.0\.0\.1:1' \(Connection refused\)"):
        check_reachable("127.0.0.1:1")


pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("sh"), reason="for a POSIX shell")
