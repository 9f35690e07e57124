"""Stage train: the weights of one run of one experiment or ablation, trained, or taken from a published file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from dvclive.live import Live
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger

from bench.config import FitConfig, TrainConfig
from bench.errors import UserError
from bench.stages.command import run_command
from bench.stages.files import RunFiles, TrainingInfo, plan_dir, read_model, write_json, write_text
from bench.stages.fit_run import device_name, fit_run
from bench.stages.run_model import build, build_codec, build_fabric
from bench.training.checkpoint import save_checkpoint
from bench.training.loggers import asked_loggers, open_loggers
from bench.training.loop import Fit
from models import PoseModel
from models.cost import count_macs, count_parameters
from models.weights import WeightsError, load_weights


def main(profile: str, run: str, seed: int) -> None:
    """Write checkpoint, training info, live curves and runs/<profile>/curves/<run>-<seed>.csv."""
    loggers = asked_loggers()
    config = read_model(plan_dir(profile) / run / "train.json", TrainConfig)
    files = RunFiles(profile, run, seed)
    fabric = build_fabric(config.precision, *(config.fitting.processes if config.fitting else ()))
    fabric.launch()
    if config.fitting and not fabric.is_global_zero:
        fit_run(config, config.fitting, files, fabric, log=lambda _: None)
        return  # the first process writes for all
    with Live(str(files.live), save_dvc_exp=False, report=None, dvcyaml=None) as live:
        if config.fitting is None:
            source, model, result = take_published(config)
        else:
            source = None
            asked = {"profile": profile, "run": run, "seed": seed} | config.model_dump(mode="json")
            with open_loggers(loggers, f"{profile}/{files.name}", asked) as followers:
                model, result = fit_and_log(config, config.fitting, files, fabric, live, followers)
    save_checkpoint(files.checkpoint, result.state, config.architecture.model_dump())
    write_curves(files.curves, result.history)
    info = TrainingInfo(
        best_epoch=result.best_epoch,
        weights_source=source,
        device=device_name(fabric.device),
        num_parameters=count_parameters(model),
        num_presence_parameters=count_parameters(model.presence_head),
        num_macs=count_macs(lambda: build(config, pretrained=False), config.input_size),
        flip_shift=build_codec(config, model).shift,
        seconds=round(result.seconds, 1),
    )
    write_json(files.training, info.model_dump())
    files.unfinished.unlink(missing_ok=True)


def fit_and_log(
    config: TrainConfig,
    fitting: FitConfig,
    files: RunFiles,
    fabric: Fabric,
    live: Live,
    followers: Sequence[Logger],
) -> tuple[PoseModel, Fit]:
    """Train, with live curves; `followers` get every record too."""

    def log(record: dict[str, float]) -> None:
        for name, value in record.items():
            live.log_metric(name, value)
        live.next_step()  # type: ignore[no-untyped-call]
        for follower in followers:
            follower.log_metrics(record, step=int(record["epoch"]))

    return fit_run(config, fitting, files, fabric, log)


def take_published(config: TrainConfig) -> tuple[str, PoseModel, Fit]:
    """The name of a published file's format, and its weights as those of epoch 0.

    Raises:
        UserError: the file cannot be read, or its tensors are not exactly the model's.
    """
    assert config.weights is not None
    model = build(config, pretrained=False)
    try:
        source = load_weights(model, Path(config.weights))
    except WeightsError as error:
        raise UserError(str(error)) from error
    return source, model, Fit([], 0, model.state_dict(), 0.0)


LOSSES = ("loss", "heatmap_loss", "presence_loss")
CURVES = ("epoch", *(f"{split}_{loss}" for split in ("train", "calibration") for loss in LOSSES), "calibration_AP")


def write_curves(file: Path, history: Sequence[dict[str, float]]) -> None:
    """One line per epoch; none where nothing was trained."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVES, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(file, text.getvalue())


if __name__ == "__main__":
    run_command(main)
