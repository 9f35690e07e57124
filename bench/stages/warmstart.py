"""Stage warmstart (frozen): train an architecture on drawn people and keep its backbone.

The people come from a seed that no profile uses. The backbones are committed with their provenance, because the demo
has no minutes to learn one (as the source paper starts from a pretrained ViT); decoders and heads are thrown away.
With `init: warmstart` the committed backbone is trained on, and its provenance grows by one record.
"""

from pathlib import Path

import torch

from bench.config import DataParams, TrainConfig
from bench.errors import UserError
from bench.resolve import Grid, load_grid
from bench.stages.command import run_command
from bench.stages.files import RunFiles, manifest_file
from bench.stages.fit_run import device_name, fit_run
from bench.stages.prepare import write_manifests
from bench.stages.provenance import sha256_of_code
from bench.stages.run_model import build_fabric
from bench.writing import written_whole
from models.weights import WeightsError, read_history, save_warmstart, warmstart_file

DATA = "warmstart"  # the folder below data/ that plays the part of a profile


def main(model: str) -> None:
    """Write models/warmstart/<model>.safetensors; draws the people first where they are not there yet."""
    grid = load_grid(Path("params.yaml"))
    small = load_grid(Path("params.yaml"), grid.warmstart.profile)
    config = warmstart_config(small, model)
    file = warmstart_file(model)
    try:
        earlier = read_history(file) if config.architecture.init == "warmstart" else []
    except WeightsError as error:
        raise UserError(str(error)) from error
    if not manifest_file(DATA, "val").exists():
        write_manifests(DATA, drawn_people(small))
    code_sha256 = sha256_of_code()  # of what trains, whatever is edited meanwhile
    fabric = build_fabric(config.precision)
    assert config.fitting is not None
    files = RunFiles(DATA, model, grid.warmstart.seed)
    trained, result = fit_run(config, config.fitting, files, fabric, lambda _: None)
    trained.load_state_dict(result.state)
    best = result.history[result.best_epoch - 1]
    record = {
        "stage": "python -m bench.stages.warmstart",
        "people": "drawn",
        "params": {"data": drawn_people(small).model_dump(), "train": config.model_dump()},
        "code_sha256": code_sha256,
        "torch": str(torch.__version__),
        "device": device_name(fabric.device),
        "best_epoch": result.best_epoch,
        "calibration_AP": round(best["calibration_AP"], 4),
    }
    with written_whole(file) as partial:
        save_warmstart(trained.backbone, partial, [*earlier, record])
    files.unfinished.unlink(missing_ok=True)


def drawn_people(grid: Grid) -> DataParams:
    """The people of the profile's kind, but of warmstart's own seed and number."""
    return grid.data.model_copy(
        update={"source": "drawn", "root": None, "seed": grid.warmstart.seed, "num_persons": grid.warmstart.num_persons}
    )


def warmstart_config(grid: Grid, model: str) -> TrainConfig:
    """The training of the experiment of that architecture, with warmstart's own start and length."""
    warmstart = grid.warmstart
    trained = (config for config in grid.experiments.values() if config.model == model and config.fitting)
    of_model = next(trained, None)
    if of_model is None or of_model.fitting is None:
        raise UserError(f"experiments: found none that trains {model}, wanted one whose sizes the warm start takes")
    fitting = of_model.fitting.model_copy(
        update={
            "optim": warmstart.optim,
            "epochs": getattr(warmstart.epochs, model),
            "batch_size": warmstart.batch_size,
        }
    )
    return of_model.model_copy(
        update={
            "architecture": of_model.architecture.model_copy(update={"init": warmstart.init}),
            "presence_head": None,
            "fitting": fitting,
            "precision": "32-true",
            "num_workers": warmstart.num_workers,
        }
    )


if __name__ == "__main__":
    run_command(main)
