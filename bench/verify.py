"""Whether the same parameters give the same bytes: a small experiment in two fresh clones, every output compared.

`make verify`, or python -m bench.verify [FOLDER]. The clones are of the last commit and share no output and no cache.
"""

import filecmp
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from bench.errors import UserError
from bench.git import git
from bench.stages.command import run_command

CLONES = ("first", "second")
OUTPUTS = ("data", "runs", "reports")
CLOCK = re.compile(rb'"(evaluated_at|trained_seconds|seconds)": *[^,}\n]*')
"""What an output says of the time that it took or was made at; all else must agree."""


def main(
    folder: Annotated[Path | None, typer.Argument(help="for the two clones; else a passing one")] = None,
) -> None:
    """Run the experiment twice and compare: exit code 1 where a file differs."""
    root = Path(git(Path.cwd(), "rev-parse", "--show-toplevel"))
    if folder is not None:
        verify(root, folder)
        return
    with tempfile.TemporaryDirectory() as passing:
        verify(root, Path(passing))


def verify(root: Path, folder: Path) -> None:
    """Raises:
    UserError: there are edits that a clone would not have, a run fails, or a file differs.
    """
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        raise UserError(f"{root}: found edits that are not committed, wanted none: a clone would not have them")
    clones = [folder / name for name in CLONES]
    for clone in clones:
        git(folder, "clone", "--quiet", str(root), str(clone))
        make_small(clone / "params.yaml")
        run(clone)
    differing = sorted(differences(*clones))
    num_files = sum(1 for _ in outputs_of(clones[0]))
    if differing:
        raise UserError(
            f"{len(differing)} of {num_files} files differ, wanted none: {', '.join(map(str, differing[:9]))}"
            f"{', ...' if len(differing) > 9 else ''}"
        )
    print(f"{num_files} files of {git(root, 'rev-parse', '--short', 'HEAD')} twice: all the same, but for the clock")


def make_small(params: Path) -> None:
    """The demo with two systems, one ablation, few people and two epochs, through every stage."""
    yaml = YAML(typ="safe")
    tree: dict[str, Any] = yaml.load(params.read_text(encoding="utf-8"))
    kept = ("vitpose_presence", "hrnet")
    tree |= {
        "profile": "demo",
        "experiments": {name: tree["experiments"][name] for name in kept},
        "ablations": {"dropout_0": {"of": kept[0], "presence_head": {"dropout": 0.0}}},
    }
    demo = tree["profiles"]["demo"]
    demo["data"]["num_persons"] = {"train": 64, "calibration": 24, "val": 32}
    demo["base"]["train"] = {"epochs": 2, "batch_size": 16}
    yaml.dump(tree, params)


def run(clone: Path) -> None:
    """`dvc repro` from nothing, with this Python; what it prints goes to a file beside the clone.

    Raises:
        UserError: it fails.
    """
    log = clone.with_suffix(".log")
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    print(f"{clone.name} run ...", flush=True)
    command = [sys.executable, "-m", "dvc", "repro"]
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=clone, env=environment, stdout=output, stderr=output, check=False)
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise UserError(f"{clone}: dvc repro ended with exit code {done.returncode} ({last}), wanted 0")


def outputs_of(clone: Path) -> Iterator[Path]:
    """Files that stages wrote, relative to the clone."""
    for name in OUTPUTS:
        yield from (file.relative_to(clone) for file in (clone / name).rglob("*") if file.is_file())


def differences(first: Path, second: Path) -> Iterator[Path]:
    """Files that only one clone has, or that say something else but for the clock."""
    files = [set(outputs_of(clone)) for clone in (first, second)]
    yield from files[0] ^ files[1]
    for file in files[0] & files[1]:
        pair = first / file, second / file
        if not filecmp.cmp(*pair, shallow=False) and _timeless(pair[0]) != _timeless(pair[1]):
            yield file


def _timeless(file: Path) -> bytes:
    return CLOCK.sub(b"", file.read_bytes())


if __name__ == "__main__":
    run_command(main)
