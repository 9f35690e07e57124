"""Stage resolve: check `params.yaml` and write the complete parameters of every stage of every run.

Each later stage depends on its own file alone, on a digest of the code that it imports, and on digests of the files
outside of the project that it reads, so an edit of any reruns just what reads it. The stage always runs, since DVC sees
none of these by itself; a file of the plan that would be the same stays as it is.
"""

from pathlib import Path
from typing import Any

from bench.config import DataParams, TrainConfig
from bench.data.hashing import sha256_of, sha256_of_listing
from bench.data.subset import SPLITS, annotation_file
from bench.errors import UserError
from bench.resolve import Grid, grid_of, read_params
from bench.stages.code import STAGE_MODULES, sha256_of_stages
from bench.stages.command import run_command
from bench.stages.files import json_text, plan_dir, write_text
from bench.stages.outputs import check_user_paths


def main(params: Path = Path("params.yaml"), check: bool = False) -> None:
    """Write runs/<profile>/plan; with --check, only say whether the parameters are right."""
    raw = read_params(params)
    grid = grid_of(params, raw)
    check_user_paths(raw, params.parent)
    if not check:
        changed = write_plan(grid)
        print(f"changed since the last run: {_few(changed)}" if changed else UNCHANGED)


UNCHANGED = "parameters, code and input files are as they were"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def plan_of(grid: Grid) -> dict[str, Any]:
    """Contents by name: one file per stage and run, one for each stage of all runs, one for the code of each stage, and
    one for what is read outside of the project."""
    runs = {**grid.experiments, **grid.ablations}
    weights = {run: weights_digest(train) for run, train in runs.items()}  # first, as a file may be missing
    data = grid.data.only_read().model_dump(mode="json")
    plan: dict[str, Any] = {"prepare.json": data, "inputs.json": input_digests(grid.data.only_read())}
    for run, train in runs.items():
        plan[f"{run}/weights.json"] = weights[run]
        plan[f"{run}/train.json"] = train.model_dump(mode="json")
        plan[f"{run}/predict.json"] = grid.test.model_dump(mode="json")
        plan[f"{run}/evaluate.json"] = grid.evaluate.model_dump(mode="json")
    for run, retest in grid.retests.items():
        plan[f"{run}/weights.json"] = weights[retest.parent]
        plan[f"{run}/train.json"] = grid.experiments[retest.parent].model_dump(mode="json")
        plan[f"{run}/predict.json"] = retest.test.model_dump(mode="json")
        plan[f"{run}/evaluate.json"] = retest.evaluate.model_dump(mode="json")
    for run in grid.experiments:
        plan[f"{run}/stress.json"] = grid.stress.model_dump(mode="json")
        plan[f"{run}/dependency.json"] = grid.dependency.model_dump(mode="json")
    for stage, digest in sha256_of_stages(STAGE_MODULES).items():
        plan[f"code.{stage}.json"] = {"sha256": digest}
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
    plan["report.json"] = report
    errors = {key: report[key] for key in ("profile", "seeds", "systems")}
    first = next(iter(grid.experiments.values()))
    floors = {"input_size": list(first.input_size), "bbox_padding": first.bbox_padding, "fit": first.fit}
    plan["floors.json"] = floors | {"seed": grid.evaluate.seed}
    errors |= {"evaluate": grid.evaluate.model_dump(mode="json")}
    plan["errors.json"] = errors
    plan["stress_report.json"] = errors | {"stress": grid.stress.model_dump(mode="json")}
    maps = {key: report[key] for key in ("profile", "seeds", "systems", "resampling", "pictures")}
    plan["dependency_report.json"] = maps | {"dependency": grid.dependency.model_dump(mode="json")}
    plan["presence.json"] = resampling
    presence = {key: report[key] for key in ("profile", "seeds", "systems", "resampling")}
    presence |= {"policy": grid.evaluate.presence_policy}
    plan["presence_report.json"] = presence
    plan["pose_scores_report.json"] = presence
    ablations = {
        "profile": grid.profile,
        "seeds": grid.seeds,
        "resampling": resampling,
        "ablations": [f._asdict() for f in grid.factors],
    }
    plan["ablations.json"] = ablations
    shared = {key: report[key] for key in ("profile", "seeds", "systems")}
    tested = {"predict": grid.test.model_dump(mode="json"), "evaluate": grid.evaluate.model_dump(mode="json")}
    parameters = {run: {"train": train.model_dump(mode="json")} | tested for run, train in runs.items()}
    parents = {factor.name: factor.parent for factor in grid.factors if not factor.retest}
    plan["runs_report.json"] = shared | {"ablations": parents, "parameters": parameters}
    plan["cards.json"] = shared
    site = {"profiles": grid.profiles, "runs": list(runs), "policy": grid.evaluate.presence_policy}
    plan["site.json"] = shared | site
    return plan


def write_plan(grid: Grid) -> list[str]:
    """The plan as files of runs/<profile>/plan, and no others there; returns the names of those that have changed.

    Raises:
        UserError: one cannot be written.
    """
    folder = plan_dir(grid.profile)
    texts = {folder / name: json_text(content) for name, content in plan_of(grid).items()}
    before = {file: file.read_text(encoding="utf-8") for file in folder.rglob("*") if file.is_file()}
    for file in before.keys() - texts.keys():
        file.unlink()
    changed = [file for file, text in texts.items() if before.get(file) != text]
    for file in changed:
        write_text(file, texts[file])
    return sorted(file.relative_to(folder).as_posix() for file in {*changed, *(before.keys() - texts.keys())})


def input_digests(data: DataParams) -> dict[str, str | None]:
    """Digests of what is read outside of the project, by path, so that new content reruns what reads it; None for what
    is missing, as the stage that reads it says what it wanted.

    Annotations and detected boxes by content; pictures by name, size and time of change, since stage `prepare` looks at
    their content and writes it into the manifests.
    """
    if data.root is None:
        return {}
    root = Path(data.root)
    found = {str(annotation_file(root, split)): _if_there(annotation_file(root, split)) for split in SPLITS}
    found |= {str(root / split): _if_there(root / split) for split in SPLITS}
    return found if data.detections is None else found | {data.detections: _if_there(Path(data.detections))}


def _if_there(path: Path) -> str | None:
    try:
        return sha256_of_listing(path) if path.is_dir() else sha256_of([path])
    except OSError:
        return None


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
