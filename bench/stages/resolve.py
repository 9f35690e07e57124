"""Stage resolve: check `params.yaml` and write the complete parameters of every stage of every run.

Each later stage depends on its own file alone, and on a digest of the code that it imports, so an edit of either reruns
just what reads it.
"""

from pathlib import Path

from bench.config import TrainConfig
from bench.data.hashing import sha256_of
from bench.errors import UserError
from bench.resolve import Grid, load_grid, read_params
from bench.stages.code import STAGE_MODULES, sha256_of_stage
from bench.stages.command import run_command
from bench.stages.files import plan_dir, write_json
from bench.stages.outputs import check_user_paths


def main(params: Path = Path("params.yaml"), check: bool = False) -> None:
    """Write runs/<profile>/plan; with --check, only say whether the parameters are right."""
    grid = load_grid(params)
    check_user_paths(read_params(params), params.parent)
    if not check:
        write_plan(grid)


def write_plan(grid: Grid) -> None:
    """One file per stage and run, one for each stage of all runs, and one for the code of each stage."""
    folder = plan_dir(grid.profile)
    runs = {**grid.experiments, **grid.ablations}
    weights = {run: weights_digest(train) for run, train in runs.items()}  # first, as a file may be missing
    data = grid.data.only_read().model_dump(mode="json")
    write_json(folder / "prepare.json", data)
    for run, train in runs.items():
        write_json(folder / run / "weights.json", weights[run])
        write_json(folder / run / "train.json", train.model_dump(mode="json"))
        write_json(folder / run / "predict.json", grid.test.model_dump(mode="json"))
        write_json(folder / run / "evaluate.json", grid.evaluate.model_dump(mode="json"))
    for run, retest in grid.retests.items():
        write_json(folder / run / "weights.json", weights[retest.parent])
        write_json(folder / run / "train.json", grid.experiments[retest.parent].model_dump(mode="json"))
        write_json(folder / run / "predict.json", retest.test.model_dump(mode="json"))
        write_json(folder / run / "evaluate.json", retest.evaluate.model_dump(mode="json"))
    for run in grid.experiments:
        write_json(folder / run / "stress.json", grid.stress.model_dump(mode="json"))
        write_json(folder / run / "dependency.json", grid.dependency.model_dump(mode="json"))
    for stage in STAGE_MODULES:
        write_json(folder / f"code.{stage}.json", {"sha256": sha256_of_stage(stage)})
    resampling = {"num": grid.evaluate.num_resamples, "seed": grid.evaluate.seed}
    report = {
        "profile": grid.profile,
        "profiles": grid.profiles,
        "seeds": grid.seeds,
        "systems": list(grid.experiments),
        "published": grid.published,
        "resampling": resampling,
        "pictures": {"num_persons": grid.report.picture_persons, "seed": grid.report.picture_seed},
    }
    write_json(folder / "report.json", report)
    errors = {key: report[key] for key in ("profile", "seeds", "systems")}
    first = next(iter(grid.experiments.values()))
    floors = {"input_size": list(first.input_size), "bbox_padding": first.bbox_padding, "fit": first.fit}
    write_json(folder / "floors.json", floors | {"seed": grid.evaluate.seed})
    errors |= {"evaluate": grid.evaluate.model_dump(mode="json")}
    write_json(folder / "errors.json", errors)
    write_json(folder / "stress_report.json", errors | {"stress": grid.stress.model_dump(mode="json")})
    maps = {key: report[key] for key in ("profile", "seeds", "systems", "resampling", "pictures")}
    write_json(folder / "dependency_report.json", maps | {"dependency": grid.dependency.model_dump(mode="json")})
    write_json(folder / "presence.json", resampling)
    presence = {key: report[key] for key in ("profile", "seeds", "systems", "resampling")}
    presence |= {"policy": grid.evaluate.presence_policy}
    write_json(folder / "presence_report.json", presence)
    write_json(folder / "pose_scores_report.json", presence)
    ablations = {
        "profile": grid.profile,
        "seeds": grid.seeds,
        "resampling": resampling,
        "ablations": [f._asdict() for f in grid.factors],
    }
    write_json(folder / "ablations.json", ablations)
    shared = {key: report[key] for key in ("profile", "seeds", "systems")}
    tested = {"predict": grid.test.model_dump(mode="json"), "evaluate": grid.evaluate.model_dump(mode="json")}
    parameters = {run: {"train": train.model_dump(mode="json")} | tested for run, train in runs.items()}
    parents = {factor.name: factor.parent for factor in grid.factors if not factor.retest}
    write_json(folder / "runs_report.json", shared | {"ablations": parents, "parameters": parameters})
    write_json(folder / "cards.json", shared)
    site = {"profiles": grid.profiles, "runs": list(runs), "policy": grid.evaluate.presence_policy}
    write_json(folder / "site.json", shared | site)


def weights_digest(config: TrainConfig) -> dict[str, str]:
    """The file or folder that a run's first weights come from, with its digest, so that new content reruns the run.

    Raises:
        UserError: it is not there.
    """
    name = config.weights_file()
    if name is None:
        return {}
    path = Path(name)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    try:
        return {name: sha256_of(files)}
    except OSError as error:
        wanted = "a file or folder of weights"
        if config.architecture.init == "warmstart":
            wanted = f"a warm start: make it with `python -m bench.stages.warmstart {config.model}`"
        raise UserError(f"{name}: cannot be read ({error.strerror}), wanted {wanted}") from error


if __name__ == "__main__":
    run_command(main)
