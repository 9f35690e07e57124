"""Loggers that follow a training live, where they are asked for.

They are named by an environment variable and not by a parameter: a training stays what it is, whoever watches it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from bench.errors import UserError

VARIABLE = "BENCH_LOGGERS"
FOLDER = Path("logs")
PROJECT = "keypoint-presence"
"""What MLflow calls an experiment and Weights & Biases a project; their own environment variables go before it."""

SUCCESS, FAILED = "success", "failed"  # in Fabric's words


class Tool(NamedTuple):
    """How one kind of logger is opened and closed."""

    modules: tuple[str, ...]  # which it needs, of the extra of its name
    begin: Callable[[str, Path], Logger]  # (name of the run, folder of its files)
    end: Callable[[Any, str], None]  # (what `begin` gave, status)


def finalize(logger: Logger, status: str) -> None:
    logger.finalize(status)


def begin_tensorboard(name: str, folder: Path) -> Logger:
    """A folder `<name>/version_<n>` for each training of the same run."""
    return TensorBoardLogger(folder, name=name)


def begin_mlflow(name: str, folder: Path) -> Logger:
    """By default a database on disk: MLflow refuses plain files."""
    folder.mkdir(parents=True, exist_ok=True)
    return import_module("pytorch_lightning.loggers").MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db"),
    )


def begin_wandb(name: str, folder: Path) -> Logger:
    """Opened at once, so that closing never opens one.

    Raises:
        UserError: Weights & Biases refuses, for want of a login or a network.
    """
    parent = folder.parent  # below which it makes a folder `wandb`; it must be there, else it takes a temporary one
    parent.mkdir(parents=True, exist_ok=True)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    logger = import_module("pytorch_lightning.loggers").WandbLogger(name=name, project=project, save_dir=parent)
    try:
        _ = logger.experiment
    except import_module("wandb").Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{VARIABLE}: wandb: {reason}; without a network: WANDB_MODE=offline") from error
    return logger


def end_wandb(logger: Any, status: str) -> None:
    """Its logger leaves the run open, and the next one would go on in it."""
    logger.finalize(status)
    logger.experiment.finish(exit_code=int(status != SUCCESS))


TOOLS = {
    "tensorboard": Tool(("tensorboard",), begin_tensorboard, finalize),
    "mlflow": Tool(("mlflow", "sqlalchemy", "alembic", "pytorch_lightning"), begin_mlflow, finalize),
    "wandb": Tool(("wandb", "pytorch_lightning"), begin_wandb, end_wandb),
}


def asked_loggers() -> list[str]:
    """Names in `TOOLS` that the environment asks for, with commas between; usually none.

    Raises:
        UserError: a name is unknown, or what it needs is not installed.
    """
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        if name not in TOOLS:
            raise UserError(f"{VARIABLE}: found {name!r}, wanted names with commas between of {', '.join(TOOLS)}")
        missing = [module for module in TOOLS[name].modules if find_spec(module) is None]
        if missing:
            install = f".venv/bin/uv pip install -r pyproject.toml --extra {name} -c requirements.lock"
            raise UserError(f"{VARIABLE}: {missing[0]} is not installed, wanted the extra {name}: {install}")
    return list(dict.fromkeys(names))


@contextmanager
def open_loggers(
    names: Sequence[str], run_name: str, hyperparameters: Mapping[str, Any], folder: Path = FOLDER
) -> Iterator[list[Logger]]:
    """A logger of each name, which has the hyperparameters; all are closed at the end, as failed where it is one."""
    with ExitStack() as stack:
        yield [stack.enter_context(_opened(TOOLS[name], run_name, hyperparameters, folder / name)) for name in names]


@contextmanager
def _opened(tool: Tool, run_name: str, hyperparameters: Mapping[str, Any], folder: Path) -> Iterator[Logger]:
    logger, status = tool.begin(run_name, folder), FAILED
    try:
        logger.log_hyperparams(dict(hyperparameters))
        yield logger
        status = SUCCESS
    finally:
        tool.end(logger, status)
