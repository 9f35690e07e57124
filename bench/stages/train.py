"""Stage train: one run of one experiment or ablation, from its resolved parameters to the best epoch's weights."""

import csv
import io
from pathlib import Path

from dvclive.live import Live

from bench.config import TrainConfig
from bench.stages.command import run_command
from bench.stages.files import RunFiles, TrainingInfo, plan_dir, read_model, write_json, write_text
from bench.stages.fit_run import device_name, fit_run
from bench.stages.run_model import build_fabric
from bench.training.checkpoint import count_parameters, save_checkpoint
from bench.training.loop import Fit


def main(profile: str, run: str, seed: int) -> None:
    """Write checkpoint, training info, live curves and runs/<profile>/curves/<run>-<seed>.csv."""
    config = read_model(plan_dir(profile) / run / "train.json", TrainConfig)
    files = RunFiles(profile, run, seed)
    fabric = build_fabric(config.train.precision)
    with Live(str(files.live), save_dvc_exp=False, report=None, dvcyaml=None) as live:

        def log(record: dict[str, float]) -> None:
            for name, value in record.items():
                live.log_metric(name, value)
            live.next_step()

        model, result = fit_run(config, profile, seed, fabric, log)
    save_checkpoint(files.checkpoint, result.state)
    write_curves(files.curves, result)
    info = TrainingInfo(
        best_epoch=result.best_epoch,
        device=device_name(fabric.device),
        num_parameters=count_parameters(model),
        num_presence_parameters=count_parameters(model.presence_head),
    )
    write_json(files.training, info.model_dump())


def write_curves(file: Path, result: Fit) -> None:
    """One line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, result.history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.history)
    write_text(file, text.getvalue())


if __name__ == "__main__":
    run_command(main)
