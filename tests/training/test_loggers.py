"""Loggers that the environment asks for: names, what they are told, that all are closed; real ones where installed."""

import csv
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.loggers.logger import Logger
from ruamel.yaml import YAML

from bench.errors import UserError
from bench.resolve import load_grid
from bench.stages import prepare, resolve, train
from bench.stages.files import RunFiles
from bench.training import loggers
from bench.training.loggers import TOOLS, VARIABLE, Tool, asked_loggers, finalize, open_loggers
from tests.test_parameters import small_tree

REPO = Path(__file__).parents[2]
DISTRIBUTIONS = {"mlflow": "mlflow-skinny", "pytorch_lightning": "pytorch-lightning"}
HYPERPARAMETERS = {"run": "hrnet", "optim": {"lr": 5e-4, "clip_norm": None}, "input_size": [64, 96]}
RECORDS = [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}]


def needs(name: str) -> pytest.MarkDecorator:
    missing = [module for module in TOOLS[name].modules if find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"the extra {name} is not installed")


class Recorder(Logger):
    """Remembers what it is told."""

    def __init__(self, name: str, folder: Path) -> None:
        self.told: list[tuple[str, Any]] = [("open", (name, folder))]

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        self.told.append(("hyperparameters", params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.told.append(("record", (step, dict(metrics))))

    def finalize(self, status: str) -> None:
        self.told.append(("end", status))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Every logger that is opened; `first` and `second` are the only tools."""
    opened: list[Recorder] = []

    def begin(name: str, folder: Path) -> Logger:
        opened.append(Recorder(name, folder))
        return opened[-1]

    monkeypatch.setattr(loggers, "TOOLS", {name: Tool((), begin, finalize) for name in ("first", "second")})
    return opened


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, []), ("", []), (" , ", []), ("first", ["first"]), ("second, first,second", ["second", "first"])],
)
def test_names_come_from_the_environment(
    value: str | None, wanted: list[str], opened: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert asked_loggers() == wanted
    assert not opened


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    monkeypatch.setenv(VARIABLE, "tensorboard,wandd")
    wanted = "BENCH_LOGGERS: found 'wandd', wanted names with commas between of tensorboard, mlflow, wandb"
    with pytest.raises(UserError, match=f"^{wanted}$"):
        asked_loggers()


def test_a_missing_package_is_named_with_its_extra_before_any_work(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == "alembic" else name)
    monkeypatch.setenv(VARIABLE, "wandb,mlflow")
    wanted = "BENCH_LOGGERS: alembic is not installed, wanted the extra mlflow: .venv/bin/uv pip install "
    assert wanted in refused(train.main, "p", "run", "0")


def test_extras_bring_what_loggers_need_and_keep_our_fabric() -> None:
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [fabric] = re.findall(r"^lightning-fabric==(.+)$", (REPO / "requirements.lock").read_text(), re.MULTILINE)
    for name, tool in TOOLS.items():
        wanted = {DISTRIBUTIONS.get(module, module) for module in tool.modules}
        assert {re.split("[<>=]", requirement)[0] for requirement in extras[name]} == wanted
        if "pytorch_lightning" in tool.modules:
            assert f"pytorch-lightning=={fabric}" in extras[name]


def test_without_a_wish_no_logger_is_imported() -> None:
    """Nothing of ours imports one; timm tries wandb, and goes on without."""
    modules = sorted({module for tool in TOOLS.values() for module in tool.modules})
    code = f"""
import sys
sys.modules.update(dict.fromkeys({modules}))  # an import of them is an error
import bench.stages.train
from bench.training.loggers import asked_loggers, open_loggers
with open_loggers(asked_loggers(), "p/run-0", {{}}) as found:
    print(found)
"""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_logger_that_cannot_be_closed_leaves_no_other_open(
    opened: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(logger: Logger, status: str) -> None:
        raise OSError("disk full")

    monkeypatch.setitem(loggers.TOOLS, "second", loggers.TOOLS["second"]._replace(end=end))
    with pytest.raises(OSError, match="disk full"), open_loggers(["first", "second"], "p/run-0", {}):
        pass
    assert opened[0].told[-1] == ("end", "failed")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Drawn people, and the plan of a microscopic run."""
    tree = small_tree("p") | {"experiments": {"run": {}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setattr(resolve, "STAGE_MODULES", {})
        YAML(typ="safe").dump(tree, Path("params.yaml"))
        resolve.write_plan(load_grid(Path("params.yaml")))
        prepare.main("p")
        yield Path.cwd()


def test_a_training_tells_all_of_them_all_and_stays_what_it_is(
    project: Path, opened: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    files = RunFiles("p", "run", 0)
    train.main("p", "run", 0)
    before = files.checkpoint.read_bytes(), files.curves.read_bytes()
    assert not opened
    monkeypatch.setenv(VARIABLE, "first,second")
    train.main("p", "run", 0)
    assert (files.checkpoint.read_bytes(), files.curves.read_bytes()) == before
    history = [{key: float(x) for key, x in row.items()} for row in csv.DictReader(files.curves.open())]
    assert len(history) == 2
    for name, recorder in zip(("first", "second"), opened, strict=True):
        (_, start), (_, told), *records, end = recorder.told
        assert start == ("p/run-0", Path("logs") / name)
        assert (told["profile"], told["run"], told["seed"], told["input_size"]) == ("p", "run", 0, [32, 32])
        assert told["fitting"]["optim"]["lr"] == 1e-2
        assert records == [("record", (i, record)) for i, record in enumerate(history, start=1)]
        assert end == ("end", "success")


@pytest.mark.parametrize("error", [UserError("it diverged"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_training_that_fails_closes_them_as_failed(
    error: BaseException, project: Path, opened: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.chdir(project)
    monkeypatch.setenv(VARIABLE, "first,second")
    monkeypatch.setattr(train, "fit_run", fail)
    with pytest.raises(type(error)):
        train.main("p", "run", 0)
    assert [recorder.told[-1] for recorder in opened] == [("end", "failed")] * 2


def log_two(name: str, folder: Path) -> None:
    with open_loggers([name], "demo/hrnet-0", HYPERPARAMETERS, folder) as [logger]:
        for record in RECORDS:
            logger.log_metrics(record, step=int(record["epoch"]))


@needs("tensorboard")
def test_tensorboard_has_curves_and_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        log_two("tensorboard", tmp_path)
    for version in (0, 1):
        folder = tmp_path / "tensorboard" / "demo/hrnet-0" / f"version_{version}"
        assert list(folder.glob("events.out.tfevents.*"))
        found = EventAccumulator(str(folder)).Reload()
        assert [(event.step, event.value) for event in found.Scalars("train_loss")] == [(1, 0.5), (2, 0.25)]
        [told] = re.findall("lr.{0,20}", str(found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content))
        assert told


@needs("mlflow")
def test_mlflow_has_curves_hyperparameters_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    log_two("mlflow", tmp_path)
    with pytest.raises(UserError), open_loggers(["mlflow"], "demo/hrnet-1", HYPERPARAMETERS, tmp_path):
        raise UserError("it diverged")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("keypoint-presence")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    status = {name: run.info.status for name, run in runs.items()}
    assert status == {"demo/hrnet-0": "FINISHED", "demo/hrnet-1": "FAILED"}
    run = runs["demo/hrnet-0"]
    assert run.data.params == {
        "run": "hrnet", "optim/lr": "0.0005", "optim/clip_norm": "None", "input_size": "[64, 96]",
    }  # fmt: skip
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]


@needs("wandb")
def test_wandb_works_without_a_network_and_closes_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):
        log_two("wandb", tmp_path)
        assert wandb.run is None
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for file in files:
        content = file.read_bytes()
        for text in (b"demo/hrnet-0", b"keypoint-presence", b"train_loss", b"clip_norm"):
            assert text in content
