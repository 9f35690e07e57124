"""What the environment needs of the machine, said before anything is installed.

The system's own Python runs this file alone, so it imports nothing of ours and old versions of Python 3 can read it.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OLDEST = (3, 11)
GIGABYTES = 8
"""Of disk for the environment: it takes 7, and what is downloaded lies beside it for a while."""


def main() -> None:
    """Print one line for each thing that is missing, and fail if there is one."""
    lines = missing(Path(sys.argv[1]))
    for line in lines:
        sys.stderr.write("error: " + line + "\n")
    sys.exit(bool(lines))


def missing(environment: Path) -> "list[str]":
    """What is not there that it takes to make an environment in a folder, which need not exist yet."""
    if python_missing():
        return [python_missing()]  # the others ask this Python
    checks = (venv_missing(), compiler_missing(), headers_missing(), git_missing(), disk_missing(environment))
    return [line for line in checks if line]


def python_missing() -> str:
    if sys.version_info[:2] >= OLDEST:
        return ""
    return "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ": name another, make PYTHON=python3.11"


def venv_missing() -> str:
    absent = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return "Python's module " + absent[0] + " is needed: install it, such as with `apt install python3-venv`"


def compiler_missing() -> str:
    """Compilation takes $CC, or else the compiler that Python itself was built with."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(command):
        return ""
    return (
        "a C compiler is needed, as xtcocotools is compiled: found no " + command + ", install it, such as with `apt "
        "install gcc`, or name another in CC"
    )


def headers_missing() -> str:
    folder = sysconfig.get_path("include")
    if (Path(folder) / "Python.h").is_file():
        return ""
    return (
        "Python's headers are needed, as xtcocotools is compiled: found no Python.h in " + folder + ", install them, "
        "such as with `apt install python3-dev`"
    )


def git_missing() -> str:
    """DVC keeps its records by git."""
    if not shutil.which("git"):
        return "git is needed: install it, such as with `apt install git`"
    asked = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], capture_output=True, check=False)
    if asked.returncode == 0 and asked.stdout.strip() == b"true":
        return ""
    said = asked.stderr.decode(errors="replace").strip().split("\n")[0]
    return (
        "a git repository is needed, as DVC works in one only: git says '" + said + "', take the project with `git "
        "clone`, or make one here with `git init && git add -A && git commit -m start`"
    )


def disk_missing(environment: Path) -> str:
    """What an environment already holds counts, as it is replaced."""
    target = environment.resolve()
    folder = next(place for place in (target, *target.parents) if place.exists())
    free = shutil.disk_usage(str(folder)).free
    if free + size_of(target) >= GIGABYTES * 10**9:
        return ""
    return (
        str(GIGABYTES)
        + " GB of disk are needed for "
        + str(environment)
        + ", found "
        + str(round(free / 10**9, 1))
        + " GB free in "
        + str(folder)
        + ": make room there"
    )


def size_of(folder: Path) -> int:
    """In bytes, links not followed; 0 where there is no such folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*"))


if __name__ == "__main__":
    main()
