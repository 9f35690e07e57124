"""What stages write, by name: the only files that `make clean` removes, and where no data of the user may lie.

DVC deletes an output before its stage runs, so a data set there would be lost.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from bench.errors import UserError
from bench.resolve import read_params
from bench.stages.command import run_command
from bench.stages.files import crops_dir, unfinished_dir

CLEANED = ("data", "runs")
PICTURES_AND_LABELS = (
    "annotations", "annotations/person_keypoints_train2017.json", "annotations/person_keypoints_val2017.json",
    "train2017", "val2017",
)  # fmt: skip
PATTERNS = {"seed": r"\d+"}
"""Of what stands for an item of a matrix, in one part of a path; all others are names."""


class Output(NamedTuple):
    """A path relative to the project's root, such as `runs/demo/<run>-<seed>/training.json`."""

    path: str
    frozen: bool = False  # its stage runs by hand alone, and its output is kept

    @property
    def parts(self) -> list[str]:
        return self.path.split("/")


class UserPath(NamedTuple):
    key: str
    path: str

    @property
    def weights(self) -> bool:
        return self.key.endswith((".init", ".weights"))


def main() -> None:
    """Remove the outputs of stages below data/ and runs/, the stores of crops and the unfinished trainings."""
    clean(Path())


def clean(root: Path) -> None:
    """Remove by name what stages wrote below data/ and runs/, then the folders that this leaves empty.

    A symbolic link is removed as a link, and no link is followed.

    Raises:
        UserError: `params.yaml` does not say which profiles there are, a path of the user meets an output, or a file
            cannot be removed.
    """
    raw = read_params(root / "params.yaml")
    outputs = all_outputs(root, list(raw["profiles"]))
    check_user_paths(raw, root, outputs)
    try:
        for output in outputs:
            if output.parts[0] in CLEANED:
                for found in list(_found(root, output.parts)):
                    _remove(found)
                    _remove_empty_parents(found.parent, root)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be removed ({error.strerror})") from error


def all_outputs(root: Path, profiles: list[str]) -> list[Output]:
    """Outputs of every stage in `dvc.yaml` for every profile, then what stages keep beside these."""
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    declared = [Output(path, stage.get("frozen", False)) for stage in stages.values() for path in _declared(stage)]
    kept = [Output(folder(profile).as_posix()) for profile in profiles for folder in (crops_dir, unfinished_dir)]
    named = [Output(o.path.replace("${profile}", profile), o.frozen) for o in declared for profile in profiles]
    return list(dict.fromkeys([*named, *kept]))


def _declared(stage: dict[str, Any]) -> Iterator[str]:
    for entry in (entry for kind in ("outs", "plots", "metrics") for entry in stage.get(kind, [])):
        path = next(iter(entry)) if isinstance(entry, dict) else entry
        yield re.sub(r"\$\{item\.(\w+)[\w.]*\}", r"<\1>", path)


def _matches(pattern: str, name: str) -> bool:
    """Whether a part of an output's path, such as `<run>-<seed>.json`, stands for this name."""
    if "<" not in pattern:
        return pattern == name
    expression = re.sub(r"<(\w+)>", lambda item: PATTERNS.get(item[1], r"\w+"), re.escape(pattern))
    return re.fullmatch(expression, name, re.ASCII) is not None


def _found(folder: Path, parts: list[str]) -> Iterator[Path]:
    """What there is of an output; links on the way to it are not followed."""
    first, *rest = parts
    for path in sorted(folder.iterdir()):
        if not _matches(first, path.name):
            continue
        if not rest:
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _found(path, rest)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_empty_parents(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def check_user_paths(raw: dict[str, Any], root: Path, outputs: list[Output] | None = None) -> None:
    """Data and weights that `params.yaml` names must not lie in an output of any profile, be one, or hold one.

    Args:
        raw: the content of `params.yaml`.
        root: of the project.
        outputs: those of `all_outputs`, if they are known already.

    Raises:
        UserError: one line with the key, the path, the output and what to do.
    """
    places = [
        (output, place)
        for output in outputs or all_outputs(root, list(raw["profiles"]))
        for place in _output_places(root, output)
    ]
    for user in dict.fromkeys(_user_paths(raw)):
        for own in (place for path in _read_with(root, user) for place in _places(user.key, path)):
            for output, parts in places:
                if not (user.weights and output.frozen) and all(map(_matches, parts, own.parts)):
                    raise UserError(_refusal(user, own != _as_written(root / user.path), own, output, parts))


def _refusal(user: UserPath, linked: bool, own: Path, output: Output, parts: tuple[str, ...]) -> str:
    deeper = len(own.parts) - len(parts)
    relation = "lies in" if deeper > 0 else "holds" if deeper < 0 else "is"
    by_link = f" (by a link: {own})" if linked else ""
    return (
        f"params.yaml: {user.key}: found {user.path!r}{by_link}, which {relation} {output.path}, an output of a stage, "
        "wanted another place, such as data/mine for a data set: DVC deletes an output before its stage runs"
    )


def _user_paths(tree: dict[str, Any], above: str = "") -> Iterator[UserPath]:
    """Every value of `params.yaml` that names a file or a folder, of all profiles, experiments and ablations."""
    for name, value in tree.items():
        key = f"{above}.{name}" if above else name
        if isinstance(value, dict):
            yield from _user_paths(value, key)
        elif isinstance(value, str) and (
            key.endswith(("data.root", "data.detections"))
            or (name in ("init", "weights") and value.startswith("models/"))
        ):
            yield UserPath(key, value)


def _read_with(root: Path, user: UserPath) -> Iterator[Path]:
    """A path, and the links below it that are read."""
    path = root / user.path
    yield path
    if not user.weights:
        yield from (path / part for part in PICTURES_AND_LABELS if (path / part).is_symlink())
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_symlink())


def _output_places(root: Path, output: Output) -> set[tuple[str, ...]]:
    """The parts of an output's full path, as written and with links resolved, as far as its names are known."""
    known = next((i for i, part in enumerate(output.parts) if "<" in part), len(output.parts))
    places = _places(output.path, root.joinpath(*output.parts[:known]))
    return {(*place.parts, *output.parts[known:]) for place in places}


def _places(key: str, path: Path) -> set[Path]:
    """The full path as it is written, and with links resolved."""
    try:
        return {_as_written(path), path.resolve()}
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"params.yaml: {key}: found {str(path)!r}, which leads nowhere ({error})") from error


def _as_written(path: Path) -> Path:
    """The full path without `..`, links left as they are."""
    return Path(os.path.normpath(Path.cwd() / path))


if __name__ == "__main__":
    run_command(main)
